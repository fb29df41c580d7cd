//! A large request body that is sent in chunks, and dropped with its call. Both writers use it.
//!
//! When a request is dropped while it is being written, hyper 1.12 first writes the rest of its body. That never ends
//! if the peer does not read, and a body that was passed as a whole would stay in memory until then, once for each
//! attempt that times out. Of a body in chunks, only the chunks that the connection has taken stay in memory.
//!
//! It also shows whether a request can have been applied. It cannot if a part of its body was never sent.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

/// Size of a chunk. A body that is not larger is sent as a whole.
const CHUNK_BYTES: usize = 64 * 1024;

/// The caller's half. Dropping it cancels the rest of the body.
#[derive(Debug, Default)]
pub(super) struct ChunkedBody(Arc<Mutex<Remaining>>);

#[derive(Debug, Default)]
struct Remaining {
    /// The part that the connection has not taken yet.
    bytes: Bytes,
    is_cancelled: bool,
    /// Whether a part was left when the body was cancelled.
    was_incomplete: bool,
}

impl ChunkedBody {
    /// The request's half.
    pub(super) fn source(&self) -> ChunkedBodySource {
        ChunkedBodySource(Arc::clone(&self.0))
    }

    /// Whether the connection has not taken the whole body yet.
    pub(super) fn is_incomplete(&self) -> bool {
        !lock(&self.0).bytes.is_empty()
    }

    /// Stops sending the body. Returns whether a part of it was never sent: the service cannot have applied
    /// such a request. One step under the lock, because another thread may be taking chunks.
    pub(super) fn cancel(&self) -> bool {
        let mut remaining = lock(&self.0);
        remaining.is_cancelled = true;
        remaining.was_incomplete |= !std::mem::take(&mut remaining.bytes).is_empty();
        remaining.was_incomplete
    }
}

impl Drop for ChunkedBody {
    fn drop(&mut self) {
        self.cancel();
    }
}

/// The request's half: receives the body once it is rendered, and provides its chunks.
#[derive(Debug, Clone)]
pub(super) struct ChunkedBodySource(Arc<Mutex<Remaining>>);

impl ChunkedBodySource {
    /// Sets the body, if it is large enough to be sent in chunks.
    pub(super) fn set(&self, body: &Bytes) {
        if body.len() > CHUNK_BYTES {
            lock(&self.0).bytes = body.clone();
        }
    }

    /// The chunks to send instead of `body`. `None` if `body` is not the one that was set: it is small, or an
    /// interceptor has replaced it.
    pub(super) fn chunks(&self, body: Option<&[u8]>) -> Option<Chunks> {
        let mut remaining = lock(&self.0);
        if body.is_none_or(|body| body.as_ptr() != remaining.bytes.as_ptr()) {
            remaining.bytes = Bytes::new();
        }
        (!remaining.bytes.is_empty()).then(|| Chunks(Arc::clone(&self.0)))
    }
}

/// The HTTP body that yields the chunks.
pub(super) struct Chunks(Arc<Mutex<Remaining>>);

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut remaining = lock(&self.0);
        if remaining.bytes.is_empty() {
            // A cancelled body ends before its announced length, which makes hyper close the connection.
            return Poll::Ready(None);
        }
        // Copied, because a slice would keep the whole body in memory.
        let length = remaining.bytes.len().min(CHUNK_BYTES);
        let chunk = Bytes::copy_from_slice(remaining.bytes.get(..length).unwrap_or_default());
        remaining.bytes.advance(length);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        let remaining = lock(&self.0);
        remaining.bytes.is_empty() && !remaining.is_cancelled
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(lock(&self.0).bytes.len() as u64)
    }
}

fn lock(remaining: &Mutex<Remaining>) -> MutexGuard<'_, Remaining> {
    remaining.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn large_body_is_sent_in_chunks() {
        let body: Bytes = (0..3 * CHUNK_BYTES + 7).map(|index| index as u8).collect();
        let chunked = ChunkedBody::default();
        chunked.source().set(&body);
        let mut chunks = chunked.source().chunks(Some(&body)).unwrap();
        assert_eq!(chunks.size_hint().exact(), Some(body.len() as u64));
        let mut sent = Vec::new();
        while chunked.is_incomplete() {
            sent.push(block_on(chunks.frame()).unwrap().unwrap().into_data().unwrap());
        }
        assert!(chunks.is_end_stream() && block_on(chunks.frame()).is_none());
        assert_eq!(
            sent.iter().map(Bytes::len).collect::<Vec<_>>(),
            [CHUNK_BYTES, CHUNK_BYTES, CHUNK_BYTES, 7]
        );
        assert_eq!(sent.concat(), body);
    }

    #[test]
    fn dropped_body_is_neither_sent_nor_kept() {
        let body = Bytes::from(vec![0; 3 * CHUNK_BYTES]);
        let chunked = ChunkedBody::default();
        chunked.source().set(&body);
        let mut chunks = chunked.source().chunks(Some(&body)).unwrap();
        let first = block_on(chunks.frame()).unwrap().unwrap();
        drop(chunked);
        assert!(body.is_unique(), "nothing else keeps the body");
        drop(first);
        assert!(!chunks.is_end_stream(), "its length is not reached");
        assert!(block_on(chunks.frame()).is_none());
    }

    #[test]
    fn small_body_is_sent_as_a_whole() {
        let chunked = ChunkedBody::default();
        let body = Bytes::from(vec![0; CHUNK_BYTES]);
        chunked.source().set(&body);
        assert!(chunked.source().chunks(Some(&body)).is_none() && !chunked.is_incomplete());
    }

    #[test]
    fn replaced_body_is_sent_as_it_is() {
        let chunked = ChunkedBody::default();
        chunked.source().set(&Bytes::from(vec![0; 2 * CHUNK_BYTES]));
        let other = vec![1; 2 * CHUNK_BYTES];
        assert!(chunked.source().chunks(Some(&other)).is_none());
        assert!(!chunked.cancel(), "whether the other body was sent is not known");
    }

    #[test]
    fn cancelled_body_stays_incomplete() {
        let body = Bytes::from(vec![0; 2 * CHUNK_BYTES]);
        let chunked = ChunkedBody::default();
        chunked.source().set(&body);
        let mut chunks = chunked.source().chunks(Some(&body)).unwrap();
        let _first = block_on(chunks.frame()).unwrap().unwrap();
        assert!(chunked.cancel() && chunked.cancel());
        assert!(block_on(chunks.frame()).is_none());
    }
}
