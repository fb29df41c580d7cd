//! JSON string escaping, for the encoded body of an event and for the request's table name.
//!
//! The escapes are those of `serde_json`.

use std::io::{self, Write};

use serde_json::ser::{CharEscape, Formatter};

/// Appends the escaped form of `text` to `encoded`.
pub(crate) fn push_escaped(encoded: &mut String, text: &str) {
    let mut rest = text;
    loop {
        let (plain, from_escape) = rest.split_at(plain_prefix_bytes(rest.as_bytes()));
        encoded.push_str(plain);
        let mut characters = from_escape.chars();
        match characters.next() {
            None => break,
            Some('"') => encoded.push_str(r#"\""#),
            Some('\\') => encoded.push_str(r"\\"),
            Some('\n') => encoded.push_str(r"\n"),
            Some('\r') => encoded.push_str(r"\r"),
            Some('\t') => encoded.push_str(r"\t"),
            Some('\u{8}') => encoded.push_str(r"\b"),
            Some('\u{c}') => encoded.push_str(r"\f"),
            Some(control) => encoded.push_str(&format!("\\u{:04x}", u32::from(control))),
        }
        rest = characters.as_str();
    }
}

/// The text of which `encoded` is the escaped form.
pub(super) fn unescape(encoded: &str) -> serde_json::Result<String> {
    serde_json::from_str(&["\"", encoded, "\""].concat())
}

/// Length of the longest prefix that needs no escape.
fn plain_prefix_bytes(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (number, word) in words.iter().enumerate() {
        let mask = escape_mask(u64::from_le_bytes(*word));
        if mask != 0 {
            return number * 8 + mask.trailing_zeros() as usize / 8;
        }
    }
    let needs_escape = |byte: &u8| matches!(byte, b'"' | b'\\' | 0x00..=0x1f);
    words.len() * 8 + rest.iter().position(needs_escape).unwrap_or(rest.len())
}

/// Searches eight bytes at once: the lowest bit that is set lies in the first byte that needs an
/// escape. Bits above it are meaningless, because the subtractions borrow from higher bytes.
fn escape_mask(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    const TOP_BITS: u64 = u64::from_le_bytes([0x80; 8]);
    let below = |word: u64, byte: u8| word.wrapping_sub(ONES * u64::from(byte));
    let control = below(word, 0x20);
    let quote = below(word ^ (ONES * u64::from(b'"')), 1);
    let backslash = below(word ^ (ONES * u64::from(b'\\')), 1);
    // A byte with its top bit set is part of a character that is not ASCII, which needs no escape.
    (control | quote | backslash) & !word & TOP_BITS
}

/// Makes `serde_json` write the escaped form of a JSON text directly.
///
/// The only characters of a JSON text that need an escape are its quotes and backslashes. The
/// serialiser knows where it writes one, so its output is not searched for them.
#[derive(Debug)]
pub(super) struct EscapingFormatter<'a> {
    /// Counts the bytes by which the escaped form is longer than the text.
    pub(super) added_bytes: &'a mut usize,
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

    /// A number of arbitrary precision. Its text comes from the value, so it is escaped like any text.
    fn write_number_str<W: Write + ?Sized>(
        &mut self,
        writer: &mut W,
        number: &str,
    ) -> io::Result<()> {
        self.write_raw_fragment(writer, number)
    }

    /// JSON text inside the value (`RawValue`).
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
    fn quote_in_a_number_is_escaped() {
        let (mut encoded, mut added_bytes) = (Vec::new(), 0);
        let mut formatter = EscapingFormatter { added_bytes: &mut added_bytes };
        formatter.write_number_str(&mut encoded, r#"7"}}"#).unwrap();
        assert_eq!((encoded.as_slice(), added_bytes), (br#"7\"}}"#.as_slice(), 1));
    }

    proptest! {
        #[test]
        fn text_is_escaped_like_serde_json_and_unescaped_again(
            text in prop_oneof![any::<String>(), "[a\"\\\\\u{0}-\u{1f}\u{7f}é😀 ]{0,40}"],
        ) {
            let mut encoded = String::new();
            push_escaped(&mut encoded, &text);
            prop_assert_eq!(format!("\"{encoded}\""), serde_json::to_string(&text).unwrap());
            prop_assert_eq!(unescape(&encoded).unwrap(), text);
        }
    }
}
