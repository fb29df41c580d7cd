//! The command as the user typed it, and the commands that continue it.

use std::fmt;
use std::path::Path;

use clap::Command;

use crate::target::DEFAULT_FILE;

/// A command of this tool, to be printed for a POSIX shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CommandLine {
    program: String,
    /// The subcommand and its file.
    positional: Vec<String>,
    /// Options with their values, flags without.
    options: Vec<(String, Option<String>)>,
}

impl CommandLine {
    /// Parses the arguments of a command that `clap` has accepted.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>, clap: &Command) -> Self {
        let commands = || std::iter::once(clap).chain(clap.get_subcommands());
        let takes_value = |option: &str| {
            option.strip_prefix("--").is_some_and(|name| {
                commands().flat_map(Command::get_arguments).any(|argument| {
                    argument.get_long() == Some(name) && argument.get_action().takes_values()
                })
            })
        };
        let mut arguments = arguments.into_iter();
        let program = arguments.next().unwrap_or_default();
        let (mut positional, mut options) = (Vec::new(), Vec::new());
        let mut are_options_over = false;
        while let Some(argument) = arguments.next() {
            if are_options_over || !argument.starts_with('-') || argument == "-" {
                positional.push(argument);
            } else if argument == "--" {
                are_options_over = true;
            } else if let Some((name, value)) = argument.split_once('=') {
                options.push((name.to_owned(), Some(value.to_owned())));
            } else {
                let value = if takes_value(&argument) { arguments.next() } else { None };
                options.push((argument, value));
            }
        }
        Self { program, positional, options }
    }

    /// The same `put`, beginning at this line.
    pub(crate) fn with_first_line(&self, line: u64, failed: Option<&Path>) -> Self {
        let mut command = self.with_failed_file(failed);
        command.set("--from-line", Some(line.to_string()));
        command
    }

    /// The same command with another `--failed` file.
    pub(crate) fn with_failed_file(&self, failed: Option<&Path>) -> Self {
        let mut command = self.clone();
        command.set("--failed", failed.map(|path| path.display().to_string()));
        command
    }

    /// The same `put`, reading standard input.
    pub(crate) fn with_piped_input(&self, failed: &Path) -> Self {
        let mut command = self.clone();
        command.positional.truncate(1);
        command.set("--from-line", None);
        command.set("--failed", Some(failed.display().to_string()));
        command
    }

    /// The `resume` of a run's `--failed` file.
    pub(crate) fn resume(&self, file: &Path, failed: &Path) -> Self {
        let mut command = self.clone();
        command.positional = vec!["resume".to_owned(), file.display().to_string()];
        command.set("--from-line", None);
        command.set("--writer-id", None);
        command.set("--lease-writer-id", None);
        command.set("--failed", Some(failed.display().to_string()));
        if !command.has("--table") && !command.has("--local") {
            command.set("--local", Some(DEFAULT_FILE.to_owned()));
        }
        command
    }

    fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(option, _)| option == name)
    }

    fn set(&mut self, name: &str, value: Option<String>) {
        match (self.options.iter_mut().find(|(option, _)| option == name), value) {
            (Some((_, old)), Some(value)) => *old = Some(value),
            (None, Some(value)) => self.options.push((name.to_owned(), Some(value))),
            (_, None) => self.options.retain(|(option, _)| option != name),
        }
    }
}

impl fmt::Display for CommandLine {
    /// Quoted for a POSIX shell.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&quoted(&self.program))?;
        let (dashed, plain): (Vec<&String>, Vec<&String>) = self
            .positional
            .iter()
            .partition(|argument| argument.starts_with('-') && argument.as_str() != "-");
        for argument in plain {
            write!(formatter, " {}", quoted(argument))?;
        }
        for (name, value) in &self.options {
            match value {
                // A value that looks like an option is joined by `=`, so that it is
                // read as a value.
                Some(value) if value.starts_with('-') => {
                    write!(formatter, " {name}={}", quoted(&without_password(value)))?;
                }
                Some(value) => write!(formatter, " {name} {}", quoted(&without_password(value)))?,
                None => write!(formatter, " {name}")?,
            }
        }
        for argument in dashed {
            write!(formatter, " -- {}", quoted(argument))?;
        }
        Ok(())
    }
}

/// The value without the user and password that a URL may have before its `@`.
fn without_password(value: &str) -> String {
    let parts = value.split_once("://").and_then(|(scheme, rest)| {
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (_user, host) = authority.rsplit_once('@')?;
        Some(format!("{scheme}://***@{host}{path}"))
    });
    parts.unwrap_or_else(|| value.to_owned())
}

/// The argument, quoted for a POSIX shell where it has to be.
pub(crate) fn quoted(argument: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    if !argument.is_empty() && argument.bytes().all(is_plain) {
        return argument.to_owned();
    }
    format!("'{}'", argument.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn command_line(arguments: &[&str]) -> CommandLine {
        let arguments = arguments.iter().copied().map(str::to_owned);
        CommandLine::parse(arguments, &crate::Cli::command())
    }

    #[test]
    fn put_continued_from_a_line_keeps_its_options() {
        let put = command_line(&[
            "./tool",
            "-v",
            "put",
            "my events.ndjson",
            "--table=t",
            "--from-line",
            "7",
            "--json",
            "--failed",
            "failed.ndjson",
        ]);
        assert_eq!(
            put.with_first_line(12, Some("f-2.ndjson".as_ref())).to_string(),
            "./tool put 'my events.ndjson' -v --table t --from-line 12 --json --failed f-2.ndjson"
        );
        assert_eq!(
            put.with_piped_input("f-2.ndjson".as_ref()).to_string(),
            "./tool put -v --table t --json --failed f-2.ndjson"
        );
        assert_eq!(
            command_line(&["tool", "put", "--grace", "2s", "--", "-x"])
                .with_first_line(2, None)
                .to_string(),
            "tool put --grace 2s --from-line 2 -- -x"
        );
    }

    #[test]
    fn resume_names_the_failed_file_and_the_table() {
        let put =
            command_line(&["tool", "put", "it's.ndjson", "--writer-id", "7", "--failed", "a b"]);
        assert_eq!(
            put.resume("a b".as_ref(), "a b-2".as_ref()).to_string(),
            "tool resume 'a b' --failed 'a b-2' --local events.sqlite"
        );
        let put = command_line(&["tool", "put", "f", "--table", "t", "--lease-writer-id", "w"]);
        assert_eq!(
            put.resume("f1".as_ref(), "f2".as_ref()).to_string(),
            "tool resume f1 --table t --failed f2"
        );
        let resume = command_line(&[
            "tool",
            "resume",
            "f1",
            "--unchecked",
            "--table",
            "t",
            "--failed",
            "f2",
        ]);
        assert_eq!(
            resume.resume("f2".as_ref(), "f3".as_ref()).to_string(),
            "tool resume f2 --unchecked --table t --failed f3"
        );
    }

    #[test]
    fn password_in_an_endpoint_is_masked() {
        let put = command_line(&["tool", "put", "--endpoint-url", "http://me:secret@host:1/a@b"]);
        let shown = put.with_first_line(2, None).to_string();
        assert_eq!(shown, "tool put --endpoint-url 'http://***@host:1/a@b' --from-line 2");
    }
}
