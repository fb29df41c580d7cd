//! JSON text as it stands inside a JSON string: the form in which a request carries a body.

use std::io::{self, Write};

use serde_json::ser::{CharEscape, Formatter};

/// Appends `text` as it stands inside a JSON string.
pub(crate) fn push_escaped(wire: &mut String, text: &str) {
    let mut rest = text;
    loop {
        let (plain, from_escape) = rest.split_at(plain_bytes(rest.as_bytes()));
        wire.push_str(plain);
        let mut characters = from_escape.chars();
        match characters.next() {
            None => break,
            Some('"') => wire.push_str(r#"\""#),
            Some('\\') => wire.push_str(r"\\"),
            Some('\n') => wire.push_str(r"\n"),
            Some('\r') => wire.push_str(r"\r"),
            Some('\t') => wire.push_str(r"\t"),
            Some('\u{8}') => wire.push_str(r"\b"),
            Some('\u{c}') => wire.push_str(r"\f"),
            Some(control) => wire.push_str(&format!("\\u{:04x}", u32::from(control))),
        }
        rest = characters.as_str();
    }
}

/// The text of which this is the escaped form.
pub(crate) fn unescaped(wire: &str) -> serde_json::Result<String> {
    serde_json::from_str(&["\"", wire, "\""].concat())
}

/// How many of the first bytes stand for themselves inside a JSON string.
fn plain_bytes(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let escapes = escapes_among(u64::from_le_bytes(*word));
        if escapes != 0 {
            return number * 8 + escapes.trailing_zeros() as usize / 8;
        }
    }
    let is_escape = |byte: &u8| matches!(byte, b'"' | b'\\' | 0x00..=0x1f);
    words.len() * 8 + rest.iter().position(is_escape).unwrap_or(rest.len())
}

/// Eight bytes at a time: the lowest bit set is in the first byte that has to be escaped. Bits above
/// it mean nothing, as the subtractions borrow from there.
fn escapes_among(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOP_BITS: u64 = u64::from_le_bytes([0x80; 8]);
    let below = |word: u64, byte: u8| word.wrapping_sub(ONES * u64::from(byte));
    let control = below(word, 0x20);
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    // A byte with its top bit set is part of a longer character, and no escape.
    (control | quote | backslash) & !word & TOP_BITS
}

/// Has `serde_json` write the escaped form at once.
///
/// What has to be escaped in a JSON text are its quotes and backslashes, and the serialiser knows
/// where it writes one. So nobody has to look for them afterwards.
#[derive(Debug)]
pub(crate) struct EscapingFormatter<'a> {
    /// How many bytes the escaped form has more than the text.
    pub(crate) added_bytes: &'a mut usize,
}

impl EscapingFormatter<'_> {
    fn write<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escaped: &[u8],
        added_bytes: usize,
    ) -> io::Result<()> {
        *self.added_bytes += added_bytes;
        writer.write_all(escaped)
    }
}

impl Formatter for EscapingFormatter<'_> {
    fn begin_string<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.write(writer, br#"\""#, 1)
    }

    fn end_string<W: Write + ?Sized>(&mut self, writer: &mut W) -> io::Result<()> {
        self.write(writer, br#"\""#, 1)
    }

    fn write_char_escape<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => self.write(writer, br#"\\\""#, 2),
            CharEscape::ReverseSolidus => self.write(writer, br"\\\\", 2),
            CharEscape::Solidus => self.write(writer, br"\\/", 1),
            CharEscape::Backspace => self.write(writer, br"\\b", 1),
            CharEscape::FormFeed => self.write(writer, br"\\f", 1),
            CharEscape::LineFeed => self.write(writer, br"\\n", 1),
            CharEscape::CarriageReturn => self.write(writer, br"\\r", 1),
            CharEscape::Tab => self.write(writer, br"\\t", 1),
            CharEscape::AsciiControl(byte) => {
                self.write(writer, format!(r"\\u{byte:04x}").as_bytes(), 1)
            }
        }
    }

    /// A number of any length, whose text somebody else has made.
    fn write_number_str<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        number: &str,
    ) -> io::Result<()> {
        self.write_raw_fragment(writer, number)
    }

    /// JSON text that somebody else has made.
    fn write_raw_fragment<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut escaped = String::with_capacity(fragment.len() + fragment.len() / 8);
        push_escaped(&mut escaped, fragment);
        self.write(writer, escaped.as_bytes(), escaped.len() - fragment.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_number_does_not_end_the_string_that_it_stands_in() {
        let (mut wire, mut added_bytes) = (Vec::new(), 0);
        let mut formatter = EscapingFormatter { added_bytes: &mut added_bytes };
        formatter.write_number_str(&mut wire, r#"7"}}"#).unwrap();
        assert_eq!((wire.as_slice(), added_bytes), (br#"7\"}}"#.as_slice(), 1));
    }

    proptest! {
        /// serde_json escapes by the same rules.
        #[test]
        fn a_text_is_escaped_as_serde_json_does_and_comes_back(
            text in prop_oneof![any::<String>(), "[a\"\\\\\u{0}-\u{1f}\u{7f}é😀 ]{0,40}"],
        ) {
            let mut wire = String::new();
            push_escaped(&mut wire, &text);
            prop_assert_eq!(format!("\"{wire}\""), serde_json::to_string(&text).unwrap());
            prop_assert_eq!(unescaped(&wire).unwrap(), text);
        }
    }
}
