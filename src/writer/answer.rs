//! The body of an answer on its way in: no longer than an answer can be, and whole.

use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_types::body::SdkBody;
use bytes::{Buf, Bytes};
use crc32fast::Hasher;
use http_body::{Body, Frame, SizeHint};

/// Longest answer that is read, in bytes. 25 items of 400 KiB handed back whole are 10 MB, twice that where every
/// character is escaped. What goes on beyond is not an answer, and would fill the memory.
const LONGEST_ANSWER: u64 = 32 * 1024 * 1024;

/// DynamoDB's checksum of the body, as it was sent.
const CHECKSUM: &str = "x-amz-crc32";

/// Has the answer's body read no further than an answer goes, and held against its checksum, where it has one.
pub(super) fn check(response: &mut HttpResponse) {
    let checksum = response.headers().get(CHECKSUM).map(|sum| sum.trim().parse().ok());
    let body = response.take_body();
    let checked = Checked { body, read: 0, hasher: Hasher::new(), checksum, is_at_end: false };
    *response.body_mut() = SdkBody::from_body_1_x(checked);
}

struct Checked {
    body: SdkBody,
    read: u64,
    hasher: Hasher,
    /// What the header says; `Some(None)` where that is no checksum.
    checksum: Option<Option<u32>>,
    is_at_end: bool,
}

#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("the answer goes on beyond {LONGEST_ANSWER} bytes")]
    TooLong,
    #[error("the answer does not have the checksum that came with it")]
    Corrupted,
}

impl Checked {
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
                if self.read > LONGEST_ANSWER {
                    self.is_at_end = true;
                    return Poll::Ready(Some(Err(Unreadable::TooLong.into())));
                }
                Poll::Ready(Some(Ok(frame)))
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
        let status = 200.try_into().unwrap();
        let mut response = HttpResponse::new(status, SdkBody::from(body));
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

    #[test]
    fn an_answer_beyond_all_measure_is_not_read_to_its_end() {
        assert!(read(vec![b' '; LONGEST_ANSWER as usize], None).is_ok());
        let error = read(vec![b' '; LONGEST_ANSWER as usize + 1], None).unwrap_err();
        assert!(error.contains("TooLong"), "{error}");
    }
}
