//! Limits the length of a response's body, and verifies its checksum, while it is read. Both writers use it.

use std::pin::Pin;
use std::task::{Context, Poll};

use aws_sdk_dynamodb::config::http::HttpResponse;
use aws_sdk_dynamodb::error::BoxError;
use aws_smithy_types::body::SdkBody;
use bytes::{Buf, Bytes};
use crc32fast::Hasher;
use http_body::{Body, Frame, SizeHint};

/// Largest body of a 200 that is read. 25 unprocessed items of 400 KiB are 10 MB, twice as much if every character is
/// escaped, and three times as much if every character that is not ASCII is escaped. A longer body is not a response
/// of DynamoDB.
///
/// A call holds up to two copies of the body for a moment, so a server that sends endless responses can make a store use
/// 64 MiB for each call in flight.
const MAX_RESPONSE_BYTES: u64 = 32 * 1024 * 1024;

/// Largest body of a response with another status that is read. It has an error code and a message.
const MAX_ERROR_RESPONSE_BYTES: u64 = 1024 * 1024;

/// HTTP status of a request that was sent to the wrong server. `InvalidEndpointException` has it, too.
pub(super) const MISDIRECTED: u16 = 421;

/// Some proxies and servers put it before a text. The SDK's JSON parser does not accept it.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Header with DynamoDB's CRC-32 of the body as it was sent.
const CHECKSUM_HEADER: &str = "x-amz-crc32";

/// Replaces the response's body by one that fails when it is too long or does not match its checksum, if the response
/// has one, and that omits a byte order mark.
pub(super) fn verify_while_reading(response: &mut HttpResponse) {
    let max_bytes =
        if response.status().is_success() { MAX_RESPONSE_BYTES } else { MAX_ERROR_RESPONSE_BYTES };
    let checksum = response.headers().get(CHECKSUM_HEADER).map(|sum| sum.trim().parse().ok());
    let verified = VerifiedBody {
        body: response.take_body(),
        read_bytes: 0,
        max_bytes,
        expected_mark: BYTE_ORDER_MARK,
        hasher: Hasher::new(),
        checksum,
        is_at_end: false,
    };
    *response.body_mut() = SdkBody::from_body_1_x(verified);
}

struct VerifiedBody {
    body: SdkBody,
    read_bytes: u64,
    max_bytes: u64,
    /// The part of a byte order mark that may still follow. Empty as soon as other data was read.
    expected_mark: &'static [u8],
    hasher: Hasher,
    /// The checksum in the header; `Some(None)` if the header's value is not a checksum.
    checksum: Option<Option<u32>>,
    is_at_end: bool,
}

#[derive(Debug, thiserror::Error)]
enum ResponseBodyError {
    #[error("the response is longer than {0} bytes")]
    TooLong(u64),
    #[error("the response does not match its checksum")]
    Corrupted,
}

impl VerifiedBody {
    /// The data without the byte order mark at the beginning of the body. An incomplete mark is removed as well: what
    /// follows it is not JSON in any case.
    fn without_mark(&mut self, mut data: Bytes) -> Bytes {
        let mark_bytes =
            self.expected_mark.iter().zip(&data).take_while(|(mark, byte)| mark == byte).count();
        let is_all_mark = mark_bytes == data.len();
        data.advance(mark_bytes);
        self.expected_mark =
            self.expected_mark.get(mark_bytes..).filter(|_| is_all_mark).unwrap_or_default();
        data
    }

    /// The end of the body, or an error if the checksum does not match.
    fn end(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if std::mem::replace(&mut self.is_at_end, true) {
            return Poll::Ready(None);
        }
        let computed = std::mem::take(&mut self.hasher).finalize();
        match self.checksum {
            Some(checksum) if checksum != Some(computed) => {
                Poll::Ready(Some(Err(ResponseBodyError::Corrupted.into())))
            }
            _ => Poll::Ready(None),
        }
    }
}

impl Body for VerifiedBody {
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
                    self.read_bytes += data.remaining() as u64;
                }
                if self.read_bytes > self.max_bytes {
                    self.is_at_end = true;
                    let error = ResponseBodyError::TooLong(self.max_bytes);
                    return Poll::Ready(Some(Err(error.into())));
                }
                Poll::Ready(Some(Ok(frame.map_data(|data| self.without_mark(data)))))
            }
            Poll::Ready(None) => self.end(),
            other => other,
        }
    }

    fn is_end_stream(&self) -> bool {
        // Until `end` has verified the checksum, the body must be polled.
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

    /// Reads a response with this body, and this checksum in its header.
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
            response.headers_mut().insert(CHECKSUM_HEADER, checksum.to_owned());
        }
        verify_while_reading(&mut response);
        let read = block_on(ByteStream::new(response.take_body()).collect());
        read.map(|read| read.into_bytes()).map_err(|error| format!("{error:?}"))
    }

    const RESPONSE: &[u8] = br#"{"UnprocessedItems":{}}"#;

    #[test]
    fn matching_checksum_is_accepted() {
        assert_eq!(read(RESPONSE.to_vec(), Some("4185382651")).unwrap(), RESPONSE);
        assert_eq!(read(RESPONSE.to_vec(), None).unwrap(), RESPONSE);
        assert_eq!(read(Vec::new(), Some("0")).unwrap(), Bytes::new());
    }

    #[test]
    fn wrong_checksum_fails_the_read() {
        for checksum in ["4185382650", "", "-1", "none"] {
            let error = read(RESPONSE.to_vec(), Some(checksum)).unwrap_err();
            assert!(error.contains("Corrupted"), "{error}");
        }
        assert!(read(Vec::new(), Some("4185382651")).is_err());
    }

    /// A body that consists of these frames.
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
    fn byte_order_mark_is_removed_from_any_framing() {
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
        // The checksum includes the mark.
        let marked = b"\xef\xbb\xbf{}";
        let checksum = crc32fast::hash(marked).to_string();
        assert_eq!(&read(marked.to_vec(), Some(&checksum)).unwrap()[..], b"{}");
    }

    #[test]
    fn error_response_over_its_limit_fails_the_read() {
        let blanks = |length: u64| SdkBody::from(vec![b' '; length as usize]);
        assert!(read_with_status(400, blanks(MAX_ERROR_RESPONSE_BYTES), None).is_ok());
        for status in [302, 400, 500] {
            let error =
                read_with_status(status, blanks(MAX_ERROR_RESPONSE_BYTES + 1), None).unwrap_err();
            assert!(error.contains("TooLong"), "{error}");
        }
    }

    #[test]
    fn response_over_its_limit_fails_the_read() {
        assert!(read(vec![b' '; MAX_RESPONSE_BYTES as usize], None).is_ok());
        let error = read(vec![b' '; MAX_RESPONSE_BYTES as usize + 1], None).unwrap_err();
        assert!(error.contains("TooLong"), "{error}");
    }
}
