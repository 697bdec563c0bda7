//! The account of one request that an operator has asked for: what happened to it, where, when and why.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use scale0_wire::{Hop as WireHop, Priority, Reason, What, Why};
use serde::Serialize;

use crate::clock;
use crate::session::{Asked, Ended, Told};

/// The request's field with the token that allows it, and the response's with the account.
pub(crate) const FIELD: HeaderName = HeaderName::from_static("scale0-debug");

/// Bytes of an account: what no reader of heads in front of us minds.
const MOST_BYTES: usize = 4 * 1024;

/// Hops of an account; beyond it they are counted. Two brokers' accounts in full, and what happens here.
const MOST_HOPS: usize = 80;

/// What is kept free for saying how many hops are left out: a node's name, however much of it has to be escaped.
const LEFT_OUT: usize = 640;

/// The most of `Cache-Status` that is told: caches behind us may have added to it.
const CACHE_STATUS: usize = 512;

/// An account while it is written, by whoever works on the request on its thread.
#[derive(Debug)]
pub(crate) struct Explanation {
    node: String,
    request: String,
    started: Instant,
    /// When the request was sent to the broker that has it now: what that one tells is told from then on.
    sent: Cell<Instant>,
    hops: RefCell<Vec<Hop>>,
    left_out: Cell<usize>,
}

/// One thing that happened.
#[derive(Debug, Default, Serialize)]
struct Hop {
    /// Microseconds since the request's head had come. What a broker tells is set off from when the request was sent to it, so the
    /// way there is in what comes after it.
    us: u64,
    /// Where: the node's name.
    at: String,
    what: Cow<'static, str>,
    /// Another node that it has to do with.
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Cow<'static, str>>,
    /// How many could have been chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    among: Option<u64>,
    /// In a queue, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    place: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// As in `Cache-Status`.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hops: Option<u64>,
}

impl Explanation {
    /// Of a request to this service whose head had come then, at the node of this name.
    pub(crate) fn begin(started: Instant, node: &str, request: &str, service: &str) -> Self {
        let explanation = Self {
            node: node.to_owned(),
            request: request.to_owned(),
            started,
            sent: Cell::new(started),
            hops: RefCell::default(),
            left_out: Cell::new(0),
        };
        explanation.add(Hop {
            us: 0,
            service: Some(service.to_owned()),
            ..explanation.here("received")
        });
        explanation
    }

    /// Something happened here.
    pub(crate) fn note(&self, what: &'static str) {
        self.add(self.here(what));
    }

    /// The same, for this reason.
    pub(crate) fn note_why(&self, what: &'static str, why: &'static str) {
        self.add(Hop {
            why: Some(why.into()),
            ..self.here(what)
        });
    }

    /// What the lane has done with it, or has heard from a broker.
    pub(crate) fn hear(&self, told: Told) {
        match told {
            Told::Asked {
                at,
                broker,
                why,
                among,
            } => {
                self.sent.set(at);
                self.add(Hop {
                    us: self.since_start(at),
                    node: Some(broker),
                    why: Some(match why {
                        Asked::Home => "home".into(),
                        Asked::Least => "least".into(),
                        Asked::Only => "only".into(),
                    }),
                    among: Some(among as u64),
                    ..self.here("sent")
                });
            }
            Told::Ended { at, broker, how } => {
                let (what, reason) = match how {
                    Ended::Lost => ("broker-lost", None),
                    Ended::Refused(reason) => ("refused", Some(reason)),
                    Ended::Failed(reason) => ("failed", Some(reason)),
                };
                self.add(Hop {
                    us: self.since_start(at),
                    node: Some(broker),
                    why: reason.map(|reason| reason.name().into()),
                    ..self.here(what)
                });
            }
            Told::Explained { broker, hops } => {
                let since = self.since_start(self.sent.get());
                for hop in hops {
                    self.add(theirs(since, &broker, hop));
                }
            }
        }
    }

    /// The response's head is about to be sent: puts the account into it.
    pub(crate) fn answer(&self, status: u16, headers: &mut HeaderMap) {
        let cache = headers.get("cache-status");
        let cache = cache.and_then(|value| value.to_str().ok());
        let answered = Hop {
            status: Some(status),
            cache: cache
                .filter(|it| it.len() <= CACHE_STATUS)
                .map(str::to_owned),
            ..self.here("answered")
        };
        let account = self.render(&answered);
        if let Ok(account) = HeaderValue::try_from(account) {
            headers.insert(FIELD, account);
            // A cache on the way to the operator may keep the rest (RFC 9111 §5.2.2.7).
            let private = HeaderValue::from_static("private=\"scale0-debug\"");
            headers.append(header::CACHE_CONTROL, private);
        }
    }

    fn here(&self, what: &'static str) -> Hop {
        Hop {
            us: self.since_start(clock::now()),
            at: self.node.clone(),
            what: what.into(),
            ..Hop::default()
        }
    }

    fn since_start(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.started).as_micros();
        u64::try_from(since).unwrap_or(u64::MAX)
    }

    fn add(&self, hop: Hop) {
        let mut hops = self.hops.borrow_mut();
        if hops.len() < MOST_HOPS {
            hops.push(hop);
        } else {
            self.left_out.set(self.left_out.get() + 1);
        }
    }

    /// All of it in JSON, as far as there is room.
    fn render(&self, answered: &Hop) -> String {
        let json = |hop: &Hop| serde_json::to_string(hop).unwrap_or_default();
        let request = serde_json::to_string(&self.request).unwrap_or_default();
        let mut text = format!("{{\"request\":{request},\"hops\":[");
        let last = json(answered);
        let most = MOST_BYTES.saturating_sub(LEFT_OUT + last.len());
        let hops = self.hops.borrow();
        let mut told = 0;
        for hop in hops.iter() {
            let hop = json(hop);
            if most < text.len() + hop.len() {
                break;
            }
            text.push_str(&hop);
            text.push(',');
            told += 1;
        }
        let left_out = self.left_out.get() + hops.len() - told;
        if 0 < left_out {
            let left_out = Hop {
                hops: Some(left_out as u64),
                ..self.here("left-out")
            };
            text.push_str(&json(&left_out));
            text.push(',');
        }
        text.push_str(&last);
        text.push_str("]}");
        text
    }
}

/// A hop of a broker, which had the request then.
fn theirs(since: u64, broker: &str, hop: WireHop) -> Hop {
    let WireHop {
        what,
        at_us,
        a,
        b,
        node,
    } = hop;
    let node = (!node.is_empty()).then_some(node);
    let (why, among, place, hops) = match what {
        What::QUEUED => (Some(class(a)), None, Some(b), None),
        What::CHOSEN => (Some(choice(a)), Some(u64::from(b)), None, None),
        What::REJECTED | What::FAILED => (Some(reason(a)), None, None, None),
        What::LEFT_OUT => (None, None, None, Some(u64::from(a))),
        _ => (None, None, None, None),
    };
    Hop {
        us: since.saturating_add(at_us.into()),
        at: broker.to_owned(),
        what: match what.name() {
            Some(name) => name.into(),
            None => what.0.to_string().into(),
        },
        node,
        why,
        among,
        place,
        hops,
        ..Hop::default()
    }
}

fn class(number: u32) -> Cow<'static, str> {
    const INTERACTIVE: u32 = Priority::Interactive as u32;
    const NORMAL: u32 = Priority::Normal as u32;
    const BACKGROUND: u32 = Priority::Background as u32;
    match number {
        INTERACTIVE => "interactive".into(),
        NORMAL => "normal".into(),
        BACKGROUND => "background".into(),
        other => other.to_string().into(),
    }
}

fn choice(number: u32) -> Cow<'static, str> {
    let why = u8::try_from(number).ok().map(Why);
    why.and_then(Why::name)
        .map_or_else(|| number.to_string().into(), Into::into)
}

fn reason(number: u32) -> Cow<'static, str> {
    let mut all = Reason::ALL.iter();
    let found = all.find(|reason| **reason as u32 == number);
    found.map_or_else(|| number.to_string().into(), |reason| reason.name().into())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn explanation() -> Explanation {
        Explanation::begin(clock::now(), "front-1", "id-1", "shop")
    }

    fn account(explanation: &Explanation, fields: &[(HeaderName, &'static str)]) -> Value {
        let fields = fields
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut headers: HeaderMap = fields.collect();
        explanation.answer(200, &mut headers);
        let account = headers[FIELD].as_bytes();
        assert!(account.len() <= MOST_BYTES, "{}", account.len());
        serde_json::from_slice(account).unwrap()
    }

    fn hop(what: What, a: u32, b: u32, node: &str) -> WireHop {
        WireHop {
            what,
            at_us: 7,
            a,
            b,
            node: node.to_owned(),
        }
    }

    #[test]
    fn an_account_tells_what_happened_in_words() {
        let explanation = explanation();
        explanation.note_why("looked-up", "miss");
        explanation.hear(Told::Asked {
            at: clock::now(),
            broker: "broker-1".into(),
            why: Asked::Home,
            among: 2,
        });
        let hops = vec![
            hop(What::QUEUED, 2, 5, ""),
            hop(What::CHOSEN, 4, 3, "app-\"1\""),
            hop(What::REJECTED, Reason::Paused as u32, 0, "app-1"),
            hop(What::CHOSEN, 99, 1, "app-2"),
            hop(What(200), 1, 1, ""),
            hop(What::LEFT_OUT, 9, 0, ""),
        ];
        explanation.hear(Told::Explained {
            broker: "broker-1".into(),
            hops,
        });
        let status = HeaderName::from_static("cache-status");
        let account = account(&explanation, &[(status, "scale0; fwd=uri-miss")]);
        assert_eq!(account["request"], "id-1");
        let hops = account["hops"].as_array().unwrap();
        let said: Vec<String> = hops
            .iter()
            .map(|hop| {
                let mut hop = hop.clone();
                hop.as_object_mut().unwrap().remove("us");
                hop.to_string()
            })
            .collect();
        let front = |rest: &str| format!(r#"{{"at":"front-1",{rest}}}"#);
        let broker = |rest: &str| format!(r#"{{"at":"broker-1",{rest}}}"#);
        let mut expected = vec![
            front(r#""service":"shop","what":"received""#),
            front(r#""what":"looked-up","why":"miss""#),
            front(r#""among":2,"node":"broker-1","what":"sent","why":"home""#),
            broker(r#""place":5,"what":"queued","why":"background""#),
            broker(r#""among":3,"node":"app-\"1\"","what":"chosen","why":"affinity""#),
            broker(r#""node":"app-1","what":"rejected","why":"paused""#),
            broker(r#""among":1,"node":"app-2","what":"chosen","why":"99""#),
            broker(r#""what":"200""#),
            broker(r#""hops":9,"what":"left-out""#),
            front(r#""cache":"scale0; fwd=uri-miss","status":200,"what":"answered""#),
        ];
        // Whatever the order of an object's members is.
        for text in &mut expected {
            *text = serde_json::from_str::<Value>(text).unwrap().to_string();
        }
        assert_eq!(said, expected);
    }

    #[test]
    fn a_long_account_is_cut_and_says_by_how_much() {
        let explanation = explanation();
        for _ in 0..3 {
            let hops = vec![hop(What::CHOSEN, 1, 3, &"a".repeat(200)); 32];
            explanation.hear(Told::Explained {
                broker: "b".repeat(200),
                hops,
            });
        }
        let account = account(&explanation, &[]);
        let hops = account["hops"].as_array().unwrap();
        let [told @ .., left_out, answered] = &hops[..] else {
            panic!("{account}")
        };
        assert_eq!(answered["what"], "answered");
        assert_eq!(left_out["what"], "left-out");
        assert_eq!(left_out["hops"], 97 - told.len());
    }

    #[test]
    fn an_account_does_not_outgrow_its_bound_for_the_sake_of_its_last_word() {
        let explanation = explanation();
        let status = HeaderName::from_static("cache-status");
        let long: &'static str = Box::leak("x".repeat(3_000).into_boxed_str());
        for _ in 0..30 {
            explanation.note("leads");
        }
        account(&explanation, &[(status, long)]);
    }

    #[test]
    fn a_cache_on_the_way_is_told_not_to_keep_the_account() {
        let mut headers: HeaderMap = [(
            header::CACHE_CONTROL,
            HeaderValue::from_static("max-age=60"),
        )]
        .into_iter()
        .collect();
        explanation().answer(200, &mut headers);
        let controls: Vec<_> = headers.get_all(header::CACHE_CONTROL).iter().collect();
        assert_eq!(controls, ["max-age=60", "private=\"scale0-debug\""]);
    }
}
