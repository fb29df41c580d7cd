//! A large request's body on its way: handed over piece by piece, and forgotten with its call.
//!
//! An HTTP connection whose request is given up while it is being written first writes the rest
//! (hyper 1.12 does), which takes for ever where nobody reads. A body handed over whole would stay in
//! memory as long, one for each attempt that times out. In pieces, no more stays than the connection
//! has taken.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

/// Bytes handed over at a time. A body of no more is not worth the trouble.
const PIECE: usize = 64 * 1024;

/// The caller's half: as long as it lives, the body can be sent.
#[derive(Debug, Default)]
pub(super) struct ChunkedBody(Arc<Mutex<Rest>>);

#[derive(Debug, Default)]
struct Rest {
    /// What has not been handed over.
    bytes: Bytes,
    given_up: bool,
    /// A part of the body was there when it was given up.
    never_left: bool,
}

impl ChunkedBody {
    /// Where to put the body when it is made.
    pub(super) fn slot(&self) -> ChunkedBodySlot {
        ChunkedBodySlot(Arc::clone(&self.0))
    }

    /// Whether a part of the body has not left yet.
    pub(super) fn is_incomplete(&self) -> bool {
        !lock(&self.0).bytes.is_empty()
    }

    /// Lets no more of the body leave. True when a part never has: nobody can have received the
    /// request, let alone applied it. In one step, as another thread may be taking pieces.
    pub(super) fn give_up(&self) -> bool {
        let mut rest = lock(&self.0);
        rest.given_up = true;
        rest.never_left |= !std::mem::take(&mut rest.bytes).is_empty();
        rest.never_left
    }
}

impl Drop for ChunkedBody {
    fn drop(&mut self) {
        self.give_up();
    }
}

/// The request's half.
#[derive(Debug, Clone)]
pub(super) struct ChunkedBodySlot(Arc<Mutex<Rest>>);

impl ChunkedBodySlot {
    /// Keeps the body, if it is one to be handed over in pieces.
    pub(super) fn keep(&self, body: &Bytes) {
        if body.len() > PIECE {
            lock(&self.0).bytes = body.clone();
        }
    }

    /// The kept body, in pieces, in the place of `body`: if that still is the one that was kept.
    pub(super) fn pieces(&self, body: Option<&[u8]>) -> Option<Pieces> {
        let mut rest = lock(&self.0);
        if body.is_none_or(|body| body.as_ptr() != rest.bytes.as_ptr()) {
            rest.bytes = Bytes::new();
        }
        (!rest.bytes.is_empty()).then(|| Pieces(Arc::clone(&self.0)))
    }
}

/// The body as the connection takes it.
pub(super) struct Pieces(Arc<Mutex<Rest>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let mut rest = lock(&self.0);
        if rest.bytes.is_empty() {
            // Where the call was given up this ends the body short of its length, and with it the
            // connection.
            return Poll::Ready(None);
        }
        // A copy: a slice would keep the whole in memory.
        let length = rest.bytes.len().min(PIECE);
        let piece = Bytes::copy_from_slice(rest.bytes.get(..length).unwrap_or_default());
        rest.bytes.advance(length);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        let rest = lock(&self.0);
        rest.bytes.is_empty() && !rest.given_up
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(lock(&self.0).bytes.len() as u64)
    }
}

fn lock(rest: &Mutex<Rest>) -> MutexGuard<'_, Rest> {
    rest.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use http_body_util::BodyExt;

    use super::*;

    #[test]
    fn a_large_body_comes_in_pieces_and_as_a_whole_it_is_the_same() {
        let body: Bytes = (0..3 * PIECE + 7).map(|place| place as u8).collect();
        let payload = ChunkedBody::default();
        payload.slot().keep(&body);
        let mut pieces = payload.slot().pieces(Some(&body)).unwrap();
        assert_eq!(pieces.size_hint().exact(), Some(body.len() as u64));
        let mut sent = Vec::new();
        while payload.is_incomplete() {
            sent.push(block_on(pieces.frame()).unwrap().unwrap().into_data().unwrap());
        }
        assert!(pieces.is_end_stream() && block_on(pieces.frame()).is_none());
        assert_eq!(sent.iter().map(Bytes::len).collect::<Vec<_>>(), [PIECE, PIECE, PIECE, 7]);
        assert_eq!(sent.concat(), body);
    }

    #[test]
    fn a_call_that_is_given_up_sends_and_keeps_nothing_more() {
        let body = Bytes::from(vec![0; 3 * PIECE]);
        let payload = ChunkedBody::default();
        payload.slot().keep(&body);
        let mut pieces = payload.slot().pieces(Some(&body)).unwrap();
        let first = block_on(pieces.frame()).unwrap().unwrap();
        drop(payload);
        assert!(body.is_unique(), "nothing else keeps the body");
        drop(first);
        assert!(!pieces.is_end_stream(), "its length is not reached");
        assert!(block_on(pieces.frame()).is_none());
    }

    #[test]
    fn a_small_body_is_left_as_it_is() {
        let payload = ChunkedBody::default();
        let body = Bytes::from(vec![0; PIECE]);
        payload.slot().keep(&body);
        assert!(payload.slot().pieces(Some(&body)).is_none() && !payload.is_incomplete());
    }

    #[test]
    fn a_body_that_somebody_else_has_put_in_its_place_is_left_there() {
        let payload = ChunkedBody::default();
        payload.slot().keep(&Bytes::from(vec![0; 2 * PIECE]));
        let other = vec![1; 2 * PIECE];
        assert!(payload.slot().pieces(Some(&other)).is_none());
        assert!(!payload.give_up(), "nothing is known of the other");
    }

    #[test]
    fn what_had_not_left_when_the_call_was_given_up_has_never_left() {
        let body = Bytes::from(vec![0; 2 * PIECE]);
        let payload = ChunkedBody::default();
        payload.slot().keep(&body);
        let mut pieces = payload.slot().pieces(Some(&body)).unwrap();
        let _first = block_on(pieces.frame()).unwrap().unwrap();
        assert!(payload.give_up() && payload.give_up());
        assert!(block_on(pieces.frame()).is_none());
    }
}
