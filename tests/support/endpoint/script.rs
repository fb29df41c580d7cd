//! What the endpoint is to do, as data.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

/// Stands in a scripted message for the body of the batch's first item.
pub(crate) const ECHO: &str = "<body>";

/// What becomes of one `BatchWriteItem` call.
#[derive(Debug, Clone)]
pub(crate) enum Reply {
    /// Every item is applied and acknowledged.
    Ok,
    /// These items are handed back, in this order; the others are applied.
    Unprocessed(Selector),
    /// Nothing is applied, and this is the answer. [`ECHO`] in the message becomes a body.
    Error { status: u16, code: &'static str, message: &'static str },
    /// Nothing is applied, and the answer says for which of DynamoDB's limits.
    Throttled { code: &'static str, reason: &'static str },
    /// Nothing is applied, and this text is the answer.
    Raw { status: u16, body: &'static str },
    /// Nothing is applied, and the answer of an acknowledged batch comes byte by byte, with this
    /// pause before each.
    Drip { pause: Duration },
    /// Nothing is applied, and of the answer only the head and half of the body come.
    CutShort,
    /// Nothing is applied, and the answer of an acknowledged batch says another checksum than it has.
    WrongChecksum,
    /// Nothing is applied, and the answer goes on for ever.
    Endless,
    /// As [`CutShort`](Self::CutShort), but the connection is not closed: it is reset.
    ResetInAnswer,
    /// The connection is reset when the first bytes of the request's body have come. The others are
    /// not read, so nothing can be applied.
    ResetInRequest,
    /// Nothing is applied, and the connection is closed without an answer.
    HangUp,
    /// Nothing is applied, and no answer ever comes.
    Hang,
    /// Every item is applied, and then the answer is that of the other.
    Applied(Box<Self>),
}

impl Reply {
    /// An error as DynamoDB words it when nobody will look at the words.
    pub(crate) fn error(status: u16, code: &'static str) -> Self {
        let message = "As scripted.";
        Self::Error { status, code, message }
    }

    pub(crate) fn raw(status: u16, body: &'static str) -> Self {
        Self::Raw { status, body }
    }

    /// The same answer, but every item is in the table when it comes.
    pub(crate) fn once_applied(self) -> Self {
        Self::Applied(Box::new(self))
    }
}

/// What becomes of one `BatchGetItem` call.
#[derive(Debug, Clone)]
pub(crate) enum ReadReply {
    /// What the table holds.
    Ok,
    /// What the table holds, but for these keys: they are handed back.
    Unprocessed(Selector),
    /// As [`Ok`](Self::Ok), but the answer is without its `Responses`.
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

impl ReadReply {
    pub(crate) fn error(status: u16, code: &'static str) -> Self {
        Self::Error { status, code }
    }

    pub(crate) fn raw(status: u16, body: &'static str) -> Self {
        Self::Raw { status, body }
    }
}

/// Which items of a batch, or which keys of a read, are handed back.
#[derive(Debug, Clone)]
pub(crate) enum Selector {
    All,
    /// Those at these places of the request. The answer names them in this order.
    Places(Vec<usize>),
    /// Those at these places, and one that was never sent.
    PlacesAndStranger(Vec<usize>),
}

impl Selector {
    /// What is to be handed back, and what is not.
    pub(super) fn split<T: Clone>(&self, all: Vec<T>, stranger: T) -> (Vec<T>, Vec<T>) {
        match self {
            Self::All => (all, Vec::new()),
            Self::Places(places) => {
                let back = places.iter().filter_map(|&place| all.get(place).cloned()).collect();
                let others = all
                    .into_iter()
                    .enumerate()
                    .filter(|(place, _)| !places.contains(place))
                    .map(|(_, one)| one)
                    .collect();
                (back, others)
            }
            Self::PlacesAndStranger(places) => {
                let (mut back, others) = Self::Places(places.clone()).split(all, stranger.clone());
                back.push(stranger);
                (back, others)
            }
        }
    }
}

/// What `DescribeTable` says.
#[derive(Debug, Clone)]
pub(crate) enum Described {
    /// The table has this key and this status.
    Table { key: Vec<KeyPart>, status: &'static str },
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

/// All that the endpoint is to do.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    /// For the first calls that write, one each.
    pub(super) replies: VecDeque<Reply>,
    /// For those that come after.
    pub(super) then: Reply,
    /// A batch with one of these bodies is invalid, whatever its turn. It takes no reply's turn.
    pub(super) poisonous: HashSet<String>,
    /// For the first calls that read, one each.
    pub(super) read_replies: VecDeque<ReadReply>,
    /// For those that come after.
    pub(super) then_read: ReadReply,
    pub(super) described: VecDeque<Described>,
    /// For the calls after those.
    pub(super) then_described: Described,
    pub(super) only_access_key: Option<(&'static str, &'static str)>,
    pub(super) is_signed: bool,
    pub(super) clock: Option<Clock>,
}

/// A clock that is not the client's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    pub(super) hours_ahead: i64,
    /// What is said to whoever signs by another clock.
    pub(super) code: &'static str,
}

impl Script {
    /// These replies in turn, and from then on [`Reply::Ok`].
    pub(crate) fn of(replies: impl IntoIterator<Item = Reply>) -> Self {
        Self {
            replies: replies.into_iter().collect(),
            then: Reply::Ok,
            poisonous: HashSet::new(),
            read_replies: VecDeque::new(),
            then_read: ReadReply::Ok,
            described: VecDeque::new(),
            then_described: Described::with_key([EVENT_KEY]),
            only_access_key: None,
            is_signed: true,
            clock: None,
        }
    }

    /// Takes requests that nobody has signed.
    pub(crate) fn unsigned(self) -> Self {
        Self { is_signed: false, ..self }
    }

    /// This reply to every call.
    pub(crate) fn always(reply: Reply) -> Self {
        Self::of([]).then(reply)
    }

    /// What to answer when the replies are used up.
    pub(crate) fn then(self, then: Reply) -> Self {
        Self { then, ..self }
    }

    /// Calls every batch invalid that has one of these bodies, as DynamoDB does with an item that
    /// it does not like.
    pub(crate) fn poison(mut self, bodies: impl IntoIterator<Item = String>) -> Self {
        self.poisonous.extend(bodies);
        self
    }

    /// What the first calls of `BatchGetItem` are told, one each.
    pub(crate) fn first_reading(mut self, replies: impl IntoIterator<Item = ReadReply>) -> Self {
        self.read_replies.extend(replies);
        self
    }

    /// What every `BatchGetItem` is told, beyond those told otherwise.
    pub(crate) fn reading(self, then_read: ReadReply) -> Self {
        Self { then_read, ..self }
    }

    /// What every `DescribeTable` is told, beyond those told otherwise.
    pub(crate) fn describing(self, then_described: Described) -> Self {
        Self { then_described, ..self }
    }

    /// What the first calls of `DescribeTable` are told, one each.
    pub(crate) fn first_describing(
        mut self,
        described: impl IntoIterator<Item = Described>,
    ) -> Self {
        self.described.extend(described);
        self
    }

    /// Goes by a clock so far from the client's, tells it in every `Date`, and refuses with this
    /// code what is not signed by it. That takes no reply's turn.
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
