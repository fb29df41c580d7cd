//! The script of the endpoint, as data.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// Placeholder in a scripted message. It is replaced by the body of the batch's first item.
pub(crate) const ECHO: &str = "<body>";

/// How one `BatchWriteItem` or `BatchExecuteStatement` call is handled.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Every item is applied and acknowledged.
    Ok,
    /// These items are unprocessed, in this order; the others are applied.
    Unprocessed(Selector),
    /// The statements at these places fail with this code, and nothing of them is applied; the others are applied.
    Statements { places: Vec<usize>, code: &'static str },
    /// Nothing is applied, and the answer is this error. [`ECHO`] in the message is replaced.
    Error { status: u16, code: &'static str, message: &'static str },
    /// Nothing is applied, and the answer names the limit of DynamoDB that was reached.
    Throttled { code: &'static str, reason: &'static str },
    /// Nothing is applied, and the answer has this body.
    Raw { status: u16, body: &'static str },
    /// Nothing is applied, and an acknowledgement arrives byte by byte, with this pause before each.
    Drip { pause: Duration },
    /// Nothing is applied, and only the head and half of the body of an acknowledgement are sent.
    CutShort,
    /// Nothing is applied, and an acknowledgement comes with a wrong checksum.
    WrongChecksum,
    /// Nothing is applied, and the answer never ends.
    Endless,
    /// Like [`CutShort`](Self::CutShort), but the connection is reset instead of closed.
    ResetInResponse,
    /// The connection is reset when the first bytes of the request's body have arrived. The rest is
    /// not read, so nothing can be applied.
    ResetInRequest,
    /// Nothing is applied, and the connection is closed without an answer.
    HangUp,
    /// Nothing is applied, and no answer ever comes.
    Hang,
    /// Every item is applied, and the answer is the inner reply.
    Applied(Box<Self>),
    /// Another writer stores items under the keys at these places first. Then the inner reply counts.
    Taken(Vec<usize>, Box<Self>),
}

impl Reply {
    /// An error with a message that does not matter.
    pub(crate) fn error(status: u16, code: &'static str) -> Self {
        let message = "As scripted.";
        Self::Error { status, code, message }
    }

    pub(crate) fn raw(status: u16, body: &'static str) -> Self {
        Self::Raw { status, body }
    }

    /// The same answer, sent after every item was applied.
    pub(crate) fn once_applied(self) -> Self {
        Self::Applied(Box::new(self))
    }
}

/// How one `BatchGetItem` call is answered.
#[derive(Debug, Clone)]
pub(crate) enum ReadReply {
    /// With the items of the table.
    Ok,
    /// With the items of the table, except these keys, which are unprocessed.
    Unprocessed(Selector),
    /// Like [`Ok`](Self::Ok), but without the JSON member `Responses`.
    WithoutResponses,
    Error {
        status: u16,
        code: &'static str,
    },
    Raw {
        status: u16,
        body: &'static str,
    },
    HangUp,
    Hang,
}

/// How one `Scan` call is answered.
#[derive(Debug, Clone)]
pub(crate) enum ScanReply {
    /// With what the table holds.
    Ok,
    Error {
        status: u16,
        code: &'static str,
    },
    Throttled {
        code: &'static str,
        reason: &'static str,
    },
    Raw {
        status: u16,
        body: &'static str,
    },
    /// Half of a page without items that is the last one of its segment.
    CutShort,
    /// Such a page with a wrong checksum.
    WrongChecksum,
    HangUp,
    Hang,
}

impl ReadReply {
    pub(crate) fn error(status: u16, code: &'static str) -> Self {
        Self::Error { status, code }
    }

    pub(crate) fn raw(status: u16, body: &'static str) -> Self {
        Self::Raw { status, body }
    }
}

/// Which items of a batch, or which keys of a read, are unprocessed.
#[derive(Debug, Clone)]
pub(crate) enum Selector {
    All,
    /// Those at these indexes of the request. The answer lists them in this order.
    Places(Vec<usize>),
    /// Those at these indexes, and a key that was never sent.
    PlacesAndUnknownKey(Vec<usize>),
}

impl Selector {
    /// Separates the unprocessed ones from the others.
    pub(super) fn split<T: Clone>(&self, all: Vec<T>, unknown: T) -> (Vec<T>, Vec<T>) {
        match self {
            Self::All => (all, Vec::new()),
            Self::Places(places) => {
                let unprocessed =
                    places.iter().filter_map(|&place| all.get(place).cloned()).collect();
                let others = all
                    .into_iter()
                    .enumerate()
                    .filter(|(place, _)| !places.contains(place))
                    .map(|(_, one)| one)
                    .collect();
                (unprocessed, others)
            }
            Self::PlacesAndUnknownKey(places) => {
                let (mut unprocessed, others) =
                    Self::Places(places.clone()).split(all, unknown.clone());
                unprocessed.push(unknown);
                (unprocessed, others)
            }
        }
    }
}

/// How a `DescribeTable` call is answered.
#[derive(Debug, Clone)]
pub(crate) enum Described {
    /// The table has this key and this status.
    Table { key: Vec<KeyPart>, status: &'static str },
    /// A table for events of this size.
    Sized { items: u64, bytes: u64 },
    /// The call is refused.
    Error { status: u16, code: &'static str },
}

impl Described {
    /// An active table with this key.
    pub(crate) fn with_key(key: impl Into<Vec<KeyPart>>) -> Self {
        let (key, status) = (key.into(), "ACTIVE");
        Self::Table { key, status }
    }

    /// A table for events that cannot be written to yet.
    pub(crate) fn creating() -> Self {
        Self::Table { key: vec![EVENT_KEY], status: "CREATING" }
    }
}

/// One attribute of a table's key.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyPart {
    pub(crate) name: &'static str,
    /// `HASH` or `RANGE`.
    pub(crate) role: &'static str,
    /// `S`, `N` or `B`.
    pub(crate) of_type: &'static str,
}

/// The key that a table for events has.
pub(crate) const EVENT_KEY: KeyPart = KeyPart { name: "key", role: "HASH", of_type: "S" };

/// How the endpoint answers its calls.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// One for each of the first writes.
    pub(super) replies: VecDeque<Reply>,
    /// For the later writes.
    pub(super) then: Reply,
    /// A batch with one of these bodies is always invalid, and does not use a reply.
    pub(super) poisonous: HashSet<String>,
    /// One for each of the first reads.
    pub(super) read_replies: VecDeque<ReadReply>,
    /// For the later reads.
    pub(super) then_read: ReadReply,
    /// One for each of the first scans.
    pub(super) scan_replies: VecDeque<ScanReply>,
    /// For the later scans.
    pub(super) then_scan: ScanReply,
    /// One for each of the first `DescribeTable` calls.
    pub(super) described: VecDeque<Described>,
    /// For the later `DescribeTable` calls.
    pub(super) then_described: Described,
    /// The only accepted access key, and the error code for every other one.
    pub(super) only_access_key: Option<(&'static str, &'static str)>,
    pub(super) is_signed: bool,
    pub(super) clock: Option<Clock>,
}

/// A clock that differs from the client's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) hours_ahead: i64,
    /// The error code for a signature whose time is wrong.
    pub(super) code: &'static str,
}

impl Script {
    /// Gives these replies in turn, and then always [`Reply::Ok`].
    pub(crate) fn of(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self {
            replies: replies.into_iter().collect(),
            then: Reply::Ok,
            poisonous: HashSet::new(),
            read_replies: VecDeque::new(),
            then_read: ReadReply::Ok,
            scan_replies: VecDeque::new(),
            then_scan: ScanReply::Ok,
            described: VecDeque::new(),
            then_described: Described::with_key([EVENT_KEY]),
            only_access_key: None,
            is_signed: true,
            clock: None,
        }
    }

    /// Accepts requests without a signature.
    pub(crate) fn unsigned(self) -> Self {
        Self { is_signed: false, ..self }
    }

    /// Gives this reply to every call.
    pub(crate) fn always(reply: Reply) -> Self {
        Self::of([]).then(reply)
    }

    /// Sets the reply to all calls after those of the script.
    pub(crate) fn then(self, then: Reply) -> Self {
        Self { then, ..self }
    }

    /// Refuses every batch with one of these bodies, as DynamoDB refuses a batch with an invalid item.
    pub(crate) fn poison(mut self, bodies: impl IntoIterator<Item = String>) -> Self {
        self.poisonous.extend(bodies);
        self
    }

    /// The replies to the first `BatchGetItem` calls, one each.
    pub(crate) fn first_reading(mut self, replies: impl IntoIterator<Item = ReadReply>) -> Self {
        self.read_replies.extend(replies);
        self
    }

    /// The reply to every later `BatchGetItem` call.
    pub(crate) fn reading(self, then_read: ReadReply) -> Self {
        Self { then_read, ..self }
    }

    /// The replies to the first `Scan` calls, one each.
    pub(crate) fn first_scanning(mut self, replies: impl IntoIterator<Item = ScanReply>) -> Self {
        self.scan_replies.extend(replies);
        self
    }

    /// The reply to every later `Scan` call.
    pub(crate) fn scanning(self, then_scan: ScanReply) -> Self {
        Self { then_scan, ..self }
    }

    /// The reply to every later `DescribeTable` call.
    pub(crate) fn describing(self, then_described: Described) -> Self {
        Self { then_described, ..self }
    }

    /// The replies to the first `DescribeTable` calls, one each.
    pub(crate) fn first_describing(
        mut self,
        described: impl IntoIterator<Item = Described>,
    ) -> Self {
        self.described.extend(described);
        self
    }

    /// Sets a clock that differs from the client's. Every response has its time in the `Date` header,
    /// and a request that is not signed with its time is refused with this code. Such a refusal does
    /// not use a reply.
    pub(crate) fn with_clock_ahead(mut self, hours_ahead: i64, code: &'static str) -> Self {
        self.set_clock_ahead(hours_ahead, code);
        self
    }

    pub(super) fn set_clock_ahead(&mut self, hours_ahead: i64, code: &'static str) {
        self.clock = Some(Clock { hours_ahead, code });
    }
}

impl<const N: usize> From<[Reply; N]> for Script {
    fn from(replies: [Reply; N]) -> Self {
        Self::of(replies)
    }
}
