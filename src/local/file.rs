//! The file of a table: its owner and its permissions.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

use dynoxide::Database;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::error::LocalError;

/// Opens the engine's database: in memory, or in a file. The file must be missing, empty, or a database of
/// the engine. Any other file is refused and left unchanged.
pub(super) fn open_database(file: Option<&Path>) -> Result<Database, LocalError> {
    let Some(path) = file else {
        let refused = |cause| LocalError::Open { path: ":memory:".to_owned(), cause };
        return Database::memory().map_err(|cause| refused(cause.to_string()));
    };
    let refused = |cause| LocalError::Open { path: path.display().to_string(), cause };
    let path = prepare(path).map_err(refused)?;
    Database::new(&path).map_err(|cause| refused(cause.to_string()))
}

/// Creates the file if it is missing, and checks it otherwise. Returns its absolute path, which SQLite
/// cannot mistake for a URI or for `:memory:`.
fn prepare(path: &Path) -> Result<String, String> {
    let message = |error: io::Error| error.to_string();
    if !path.try_exists().map_err(message)? {
        create(path).map_err(message)?;
    }
    let path = path.canonicalize().map_err(message)?;
    let metadata = path.metadata().map_err(message)?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let text = path.to_str().ok_or("the path is not valid UTF-8")?;
    if metadata.len() > 0 {
        check_owner(text)?;
    }
    Ok(text.to_owned())
}

/// Creates an empty file that only this user may access. SQLite gives its `-wal` and `-shm` the same mode.
fn create(path: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(drop)
}

/// Refuses a file that is not a SQLite database, or that belongs to another program.
fn check_owner(path: &str) -> Result<(), String> {
    let owner = open_without_trace(path).and_then(|database| owner(&database));
    match owner {
        Ok(Owner::Engine | Owner::None) => Ok(()),
        Ok(Owner::Other(contents)) => Err(format!(
            "it is the SQLite database of another program ({contents}), and was left as it is; \
             name another file"
        )),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Err("it is another kind of file".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Opens a database read-only and leaves no trace: takes no lock, creates no `-wal` or `-shm` file, and
/// does not change an existing one.
fn open_without_trace(path: &str) -> rusqlite::Result<Connection> {
    let companion = |suffix: &str| fs::metadata(format!("{path}{suffix}"));
    let parameters = if companion("-wal").map_or(0, |wal| wal.len()) == 0 {
        // The `-wal` file is missing or empty, so all data is in the file itself.
        "immutable=1"
    } else if companion("-shm").is_ok() {
        "mode=ro&readonly_shm=1"
    } else {
        // Without a -shm file no process has the database open. In exclusive mode SQLite keeps the index
        // of the -wal file in memory.
        "mode=ro&vfs=unix-none"
    };
    let escaped = path.replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    let database = Connection::open_with_flags(format!("file:{escaped}?{parameters}"), flags)?;
    database.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if parameters.contains("unix-none") {
        database.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    }
    Ok(database)
}

#[derive(Debug)]
enum Owner {
    Engine,
    /// The database is empty.
    None,
    /// Another program; describes the contents.
    Other(String),
}

fn owner(database: &Connection) -> rusqlite::Result<Owner> {
    const HAS_ENGINE_TABLES: &str = "SELECT count(*) = 3 FROM pragma_table_info('_tables')
         WHERE name IN ('table_name', 'key_schema', 'attribute_definitions')
         AND EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = '_config')";
    if database.query_row(HAS_ENGINE_TABLES, [], |row| row.get(0))? {
        return Ok(Owner::Engine);
    }
    let names = "SELECT name FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'
         ORDER BY type <> 'table', name LIMIT 4";
    let mut names = database.prepare(names)?;
    let names: Vec<String> = names.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    if let [first, others @ ..] = names.as_slice() {
        let more = if others.len() > 2 { " and more" } else { "" };
        let shown: String = others.iter().take(2).map(|name| format!(", `{name}`")).collect();
        return Ok(Owner::Other(format!("it holds `{first}`{shown}{more}")));
    }
    // A program may mark its file before it creates a table.
    for mark in ["application_id", "user_version"] {
        let value: i32 = database.pragma_query_value(None, mark, |row| row.get(0))?;
        if value != 0 {
            return Ok(Owner::Other(format!("its {mark} is {value}")));
        }
    }
    Ok(Owner::None)
}
