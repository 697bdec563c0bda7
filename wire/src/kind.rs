//! What a message is: the table of all kinds.

/// A place where messages come from or go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Speaks HTTP to clients; dials brokers.
    Frontend,
    /// Routes; is dialled by all others.
    Broker,
    /// Answers requests; dials brokers.
    Backend,
    /// A broker of another site, which dials as well.
    Peer,
}

impl Role {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// What a side does with a kind it does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stranger {
    /// Drops it, counted: the sender does without.
    Ignores,
    /// Answers UNSUPPORTED: the sender must know.
    AnswersUnsupported,
}

/// One row of the table of kinds.
#[derive(Clone, Copy, Debug)]
pub struct KindRow {
    /// The kind.
    pub kind: Kind,
    /// Its name in `PROTOCOL.md`, logs and metrics.
    pub name: &'static str,
    /// Who may send it.
    pub from: &'static [Role],
    /// Who may receive it.
    pub to: &'static [Role],
    /// The version that has it first; of a later one than [`VERSION`](crate::VERSION) only the number is reserved, and this is `None`.
    pub since: Option<u8>,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal $name:literal [$($from:ident)*] -> [$($to:ident)*] $since:expr;)*) => {
        /// What a message is. The number's highest bit tells what a stranger does: below 128 it ignores the message, from 128 on it
        /// answers UNSUPPORTED.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $kind,)*
            /// A number that no other variant has, made by [`Kind::from_number`]; see [`Kind::stranger`].
            Unknown(u8),
        }

        impl Kind {
            /// All kinds with a number, those of later versions included, in the order of their numbers.
            pub const TABLE: &'static [KindRow] = &[$(KindRow {
                kind: Kind::$kind,
                name: $name,
                from: &[$(Role::$from),*],
                to: &[$(Role::$to),*],
                since: $since,
            }),*];

            /// The number on the wire.
            #[must_use]
            pub const fn number(self) -> u8 {
                match self {
                    $(Self::$kind => $number,)*
                    Self::Unknown(number) => number,
                }
            }

            /// The kind with this number.
            #[must_use]
            pub const fn from_number(number: u8) -> Self {
                match number {
                    $($number => Self::$kind,)*
                    unknown => Self::Unknown(unknown),
                }
            }

            /// The name in `PROTOCOL.md`, logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                    Self::Unknown(_) => "UNKNOWN",
                }
            }

            /// The version that has it first, if any yet.
            const fn since(self) -> Option<u8> {
                match self {
                    $(Self::$kind => $since,)*
                    Self::Unknown(_) => None,
                }
            }

            /// A bit for each role that may send it.
            const fn senders(self) -> u8 {
                match self {
                    $(Self::$kind => 0 $(| Role::$from.bit())*,)*
                    Self::Unknown(_) => 0,
                }
            }
        }
    };
}

kinds! {
    /// Opens a session: versions, node, lane, epoch, services, capacity.
    Hello = 1 "HELLO" [Frontend Backend Peer] -> [Broker] Some(1);
    /// Accepts a session: version, broker's name and site, heartbeat interval.
    Welcome = 2 "WELCOME" [Broker] -> [Frontend Backend Peer] Some(1);
    /// Says that its sender lives, and how loaded it is. Any other message says the former too.
    Heartbeat = 3 "HEARTBEAT" [Frontend Broker Backend Peer] -> [Frontend Broker Backend Peer] Some(1);
    /// Grants credit, cumulative per session. The same number rides in every header that a backend sends.
    Credit = 4 "CREDIT" [Backend] -> [Broker] Some(1);
    /// Tells a backend how many requests wait for its credit.
    Demand = 5 "DEMAND" [Broker] -> [Backend] Some(1);
    /// Asks a broker for unused credit that another broker wants.
    Reclaim = 6 "RECLAIM" [Backend] -> [Broker] Some(1);
    /// Gives unused credit back, cumulative per session.
    Return = 7 "RETURN" [Broker] -> [Backend] Some(1);
    /// Ends a session.
    Bye = 8 "BYE" [Frontend Broker Backend Peer] -> [Frontend Broker Backend Peer] Some(1);
    /// Asks for no new work: its sender finishes what it has and leaves.
    Drain = 9 "DRAIN" [Frontend Broker Backend Peer] -> [Frontend Broker Backend Peer] Some(1);
    /// Names other brokers to go to.
    Redirect = 10 "REDIRECT" [Broker] -> [Frontend Backend] Some(2);
    /// Answers a message of a kind that its receiver does not speak.
    Unsupported = 11 "UNSUPPORTED" [Frontend Broker Backend Peer] -> [Frontend Broker Backend Peer] Some(1);
    /// Changes the services of a session.
    Announce = 12 "ANNOUNCE" [Backend] -> [Broker] Some(2);

    /// Content of a stream, in order.
    Chunk = 17 "CHUNK" [Frontend Broker Backend] -> [Frontend Broker Backend] Some(1);
    /// Raises a window: of a stream, or of the connection where the correlation id is 0.
    Window = 18 "WINDOW" [Frontend Broker Backend] -> [Frontend Broker Backend] Some(1);
    /// An interim response (1xx other than 101).
    Interim = 19 "INTERIM" [Backend Broker] -> [Broker Frontend] Some(1);
    /// A response's head, with its content where that is short.
    Response = 20 "RESPONSE" [Backend Broker] -> [Broker Frontend] Some(1);
    /// A 101 response: both directions carry opaque bytes from here on.
    Upgrade = 21 "UPGRADE" [Backend Broker] -> [Broker Frontend] Some(1);
    /// Ends its sender's half of a stream: complete with trailers, or failed with a reason.
    End = 22 "END" [Frontend Broker Backend] -> [Frontend Broker Backend] Some(1);
    /// The receiver of a stream wants no more of it.
    Cancel = 23 "CANCEL" [Frontend Broker] -> [Broker Backend] Some(1);
    /// Changes a running request's deadline and number of waiters.
    Update = 24 "UPDATE" [Frontend Broker] -> [Broker Backend] Some(1);
    /// Was not started, and will not be: safe to repeat elsewhere.
    Reject = 25 "REJECT" [Backend Broker] -> [Broker Frontend] Some(1);
    /// Says whether a response may be shared with other frontends' waiters. Reserved.
    Verdict = 26 "VERDICT" [Frontend] -> [Broker] None;
    /// Splits a flight by variant. Reserved.
    Vary = 27 "VARY" [Broker] -> [Frontend] None;

    /// Purges stored responses. Reserved.
    Purge = 32 "PURGE" [Frontend Broker Peer] -> [Frontend Broker Peer] None;
    /// Confirms a purge. Reserved.
    Purged = 33 "PURGED" [Frontend Broker Peer] -> [Frontend Broker Peer] None;
    /// A site's load. Reserved.
    Report = 34 "REPORT" [Broker Peer] -> [Broker Peer] None;
    /// Credit between sites, which expires. Reserved.
    Grant = 35 "GRANT" [Broker Peer] -> [Broker Peer] None;
    /// The account of one request.
    Explain = 36 "EXPLAIN" [Broker Backend] -> [Frontend Broker] Some(2);

    /// A request's head, with its content where that is short.
    Request = 128 "REQUEST" [Frontend Broker] -> [Broker Backend] Some(1);
}

impl Kind {
    /// What a side that does not know this kind does with it.
    #[must_use]
    pub const fn stranger(self) -> Stranger {
        if self.number() < 128 {
            Stranger::Ignores
        } else {
            Stranger::AnswersUnsupported
        }
    }

    /// Whether a session of this version has this kind: otherwise its sides are strangers to it.
    #[must_use]
    pub const fn is_spoken_in(self, version: u8) -> bool {
        match self.since() {
            Some(since) => since <= version,
            None => false,
        }
    }

    /// The version that a message of this kind states in a session of this one. What opens and ends a session is read before a
    /// version is agreed on, or after: it states the oldest, for ever.
    #[must_use]
    pub const fn stated_version(self, session: u8) -> u8 {
        match self {
            Self::Hello | Self::Welcome | Self::Bye => 1,
            _ => session,
        }
    }

    /// Whether `role` may send this kind at all. Asked for every message, so it does not search the table.
    #[must_use]
    pub const fn may_come_from(self, role: Role) -> bool {
        self.senders() & role.bit() != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_names_one_kind_and_back() {
        for number in 0..=u8::MAX {
            assert_eq!(Kind::from_number(number).number(), number);
        }
        for pair in Kind::TABLE.windows(2) {
            assert!(pair[0].kind.number() < pair[1].kind.number(), "{pair:?}");
        }
    }

    #[test]
    fn who_may_send_a_kind_is_what_its_row_says() {
        for row in Kind::TABLE {
            for role in [Role::Frontend, Role::Broker, Role::Backend, Role::Peer] {
                assert_eq!(
                    row.kind.may_come_from(role),
                    row.from.contains(&role),
                    "{row:?}"
                );
            }
        }
        assert!(!Kind::from_number(255).may_come_from(Role::Broker));
    }

    #[test]
    fn only_a_request_must_not_be_ignored_by_a_stranger() {
        for row in Kind::TABLE {
            assert_eq!(
                row.kind.stranger() == Stranger::AnswersUnsupported,
                row.kind == Kind::Request
            );
        }
    }
}
