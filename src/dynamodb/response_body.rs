//! The body of an answer on its way in: no longer than an answer can be, and whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_types::body::SdkBody;
use bytes::{Buf, Bytes};
use crc32fast::Hasher;
use http_body::{Body, Frame, SizeHint};

/// Longest 200 that is read, in bytes. 25 items of 400 KiB handed back whole are 10 MB, twice that where every
/// character is escaped, and three times where each that is not ASCII is. What goes on beyond is not an answer.
///
/// A call holds up to two copies of it for a moment. So a server that sends nothing but endless answers can have a store
/// use 64 MiB for each call in flight.
const LONGEST_ANSWER: u64 = 32 * 1024 * 1024;

/// Longest answer of another status that is read, in bytes: a code and a sentence.
const LONGEST_REFUSAL: u64 = 1024 * 1024;

/// HTTP's status of a request that came to the wrong server, which is that of `InvalidEndpointException`.
pub(super) const MISDIRECTED: u16 = 421;

/// What some proxies and servers put before a text. The SDK's reader of JSON does not know it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// DynamoDB's checksum of the body, as it was sent.
const CHECKSUM: &str = "x-amz-crc32";

/// Has the answer's body read no further than an answer goes, held against its checksum, where it has one, and
/// without a byte order mark.
pub(super) fn check(response: &mut HttpResponse) {
    let longest = if response.status().is_success() { LONGEST_ANSWER } else { LONGEST_REFUSAL };
    let checksum = response.headers().get(CHECKSUM).map(|sum| sum.trim().parse().ok());
    let body = response.take_body();
    let checked = Checked {
        body,
        read: 0,
        longest,
        mark: BYTE_ORDER_MARK,
        hasher: Hasher::new(),
        checksum,
        is_at_end: false,
    };
    *response.body_mut() = SdkBody::from_body_1_x(checked);
}

struct Checked {
    body: SdkBody,
    read: u64,
    longest: u64,
    /// How much of a byte order mark can still come; nothing once anything else has.
    mark: &'static [u8],
    hasher: Hasher,
    /// What the header says; `Some(None)` where that is no checksum.
    checksum: Option<Option<u32>>,
    is_at_end: bool,
}

#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the answer goes on beyond {0} bytes")]
    TooLong(u64),
    #[error("the answer does not have the checksum that came with it")]
    Corrupted,
}

impl Checked {
    /// The data, without what it has of a byte order mark at the answer's beginning. A mark that breaks off is dropped
    /// as well: what follows it is not JSON either way.
    fn without_mark(&mut self, mut data: Bytes) -> Bytes {
        let common = self.mark.iter().zip(&data).take_while(|(mark, byte)| mark == byte).count();
        let is_whole = common == data.len();
        data.advance(common);
        self.mark = self.mark.get(common..).filter(|_| is_whole).unwrap_or_default();
        data
    }

    fn at_end(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if std::mem::replace(&mut self.is_at_end, true) {
            return Poll::Ready(None);
        }
        let computed = std::mem::take(&mut self.hasher).finalize();
        match self.checksum {
            Some(checksum) if checksum != Some(computed) => {
                Poll::Ready(Some(Err(Unreadable::Corrupted.into())))
            }
            _ => Poll::Ready(None),
        }
    }
}

impl Body for Checked {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.is_at_end {
            return Poll::Ready(None);
        }
        match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(data) = frame.data_ref() {
                    self.hasher.update(data);
                    self.read += data.remaining() as u64;
                }
                if self.read > self.longest {
                    self.is_at_end = true;
                    return Poll::Ready(Some(Err(Unreadable::TooLong(self.longest).into())));
                }
                Poll::Ready(Some(Ok(frame.map_data(|data| self.without_mark(data)))))
            }
            Poll::Ready(None) => self.at_end(),
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        // The end is where the checksum is looked at, so it has to be asked for.
        self.is_at_end
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::byte_stream::ByteStream;
    use futures::executor::block_on;

    use super::*;

    /// Reads an answer with this body, and this checksum in its header.
    fn read(body: Vec<u8>, checksum: Option<&str>) -> Result<Bytes, String> {
        read_with_status(200, SdkBody::from(body), checksum)
    }

    fn read_with_status(
        status: u16,
        body: SdkBody,
        checksum: Option<&str>,
    ) -> Result<Bytes, String> {
        let mut response = HttpResponse::new(status.try_into().unwrap(), body);
        if let Some(checksum) = checksum {
            response.headers_mut().insert(CHECKSUM, checksum.to_owned());
        }
        check(&mut response);
        let read = block_on(ByteStream::new(response.take_body()).collect());
        read.map(|read| read.into_bytes()).map_err(|error| format!("{error:?}"))
    }

    const ANSWER: &[u8] = br#"{"UnprocessedItems":{}}"#;

    #[test]
    fn an_answer_with_its_own_checksum_is_read() {
        assert_eq!(read(ANSWER.to_vec(), Some("4185382651")).unwrap(), ANSWER);
        assert_eq!(read(ANSWER.to_vec(), None).unwrap(), ANSWER);
        assert_eq!(read(Vec::new(), Some("0")).unwrap(), Bytes::new());
    }

    #[test]
    fn an_answer_with_another_checksum_cannot_be_read() {
        for checksum in ["4185382650", "", "-1", "none"] {
            let error = read(ANSWER.to_vec(), Some(checksum)).unwrap_err();
            assert!(error.contains("Corrupted"), "{error}");
        }
        assert!(read(Vec::new(), Some("4185382651")).is_err());
    }

    /// A body that comes in these frames.
    struct Frames(Vec<&'static [u8]>);

    impl Body for Frames {
        type Data = Bytes;
        type Error = BoxError;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            let frame = (!self.0.is_empty()).then(|| self.0.remove(0));
            Poll::Ready(frame.map(|frame| Ok(Frame::data(Bytes::from_static(frame)))))
        }
    }

    #[test]
    fn a_byte_order_mark_is_left_out_however_it_comes() {
        for (frames, body) in [
            (vec![&b"\xef\xbb\xbf{}"[..]], &b"{}"[..]),
            (vec![b"\xef", b"\xbb\xbf{", b"}"], b"{}"),
            (vec![b"\xef\xbb\xbf", b"\xef\xbb\xbf{}"], b"\xef\xbb\xbf{}"),
            (vec![b"{\xef\xbb\xbf}"], b"{\xef\xbb\xbf}"),
            (vec![b"{", b"\xef\xbb\xbf}"], b"{\xef\xbb\xbf}"),
            (vec![], b""),
        ] {
            for status in [200, 400] {
                let frames = SdkBody::from_body_1_x(Frames(frames.clone()));
                assert_eq!(read_with_status(status, frames, None).unwrap(), body);
            }
        }
        // The checksum is that of what was sent.
        let marked = b"\xef\xbb\xbf{}";
        let checksum = crc32fast::hash(marked).to_string();
        assert_eq!(&read(marked.to_vec(), Some(&checksum)).unwrap()[..], b"{}");
    }

    #[test]
    fn of_a_refusal_little_is_read() {
        let blanks = |length: u64| SdkBody::from(vec![b' '; length as usize]);
        assert!(read_with_status(400, blanks(LONGEST_REFUSAL), None).is_ok());
        for status in [302, 400, 500] {
            let error = read_with_status(status, blanks(LONGEST_REFUSAL + 1), None).unwrap_err();
            assert!(error.contains("TooLong"), "{error}");
        }
    }

    #[test]
    fn an_answer_beyond_all_measure_is_not_read_to_its_end() {
        assert!(read(vec![b' '; LONGEST_ANSWER as usize], None).is_ok());
        let error = read(vec![b' '; LONGEST_ANSWER as usize + 1], None).unwrap_err();
        assert!(error.contains("TooLong"), "{error}");
    }
}
