//! No byte of one user's response reaches another, unless a shared cache may reuse it for that very request.
//!
//! Thousands of random pairs of requests for the same address meet as many random responses, one after the other or at the
//! same time. The origin writes the asker's name into every response; whoever finds somebody else's name in theirs must have been
//! allowed to by [`may_have`], which is written from RFC 9111 and knows nothing of how Scale0 decides.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::fmt::Write as _;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use http::Response as Answer;
use support::{Client, Head, Origin, Request, Scale0, site, text};
use tokio::task::JoinSet;

/// Ten thousand if `SCALE0_BIG` is set, else what takes a few seconds without optimisation; the seed is another one every time.
fn how_many() -> usize {
    match std::env::var_os("SCALE0_BIG") {
        Some(_) => 10_000,
        None => 2_500,
    }
}

const WORKERS: usize = 24;

/// How long the origin takes where both requests are to be under way at the same time.
const TOGETHER: Duration = Duration::from_millis(5);

const CACHE_CONTROL: &[&str] = &[
    "max-age=60",
    "max-age=60",
    "public, max-age=60",
    "public",
    "s-maxage=60",
    "s-maxage=0, max-age=60",
    "max-age=0, s-maxage=60",
    "max-age=0",
    "max-age=abc",
    "max-age=-1",
    "max-age=\"60\"",
    "max-age=60, max-age=0",
    "max-age=0, max-age=60",
    "private",
    "private, max-age=60",
    "PRIVATE, Max-Age=60",
    "private=\"x-owner\", max-age=60",
    "no-store",
    "no-store, max-age=60",
    "No-Store , s-maxage=60, public",
    "no-cache",
    "no-cache, max-age=60",
    "no-cache=\"set-cookie\", max-age=60",
    "must-revalidate",
    "must-revalidate, max-age=60",
    "proxy-revalidate, max-age=60",
    "max-age=60, stale-while-revalidate=60",
    "stale-while-revalidate=60, stale-if-error=60",
    "must-understand, no-store, max-age=60",
    "immutable",
    "extension=\"public, max-age=60\"",
];
const TARGETED: &[&str] = &["max-age=60", "no-store", "private", "public, max-age=60"];
const VARY: &[&str] = &[
    "Cookie",
    "Authorization",
    "X-User",
    "Accept-Language",
    "accept-language, cookie",
    "*",
    "Accept-Language, *",
];
const EXPIRES: &[&str] = &[
    "Thu, 31 Dec 2099 23:59:59 GMT",
    "Sat, 01 Jan 2000 00:00:00 GMT",
    "0",
    "soon",
];
const REQUEST_CACHE_CONTROL: &[&str] = &["no-cache", "no-store", "max-age=0", "max-age=30"];
const STATUSES: &[u16] = &[203, 301, 302, 404, 410, 500, 503];

#[tokio::test]
async fn nobody_gets_what_was_made_for_somebody_else() {
    let seed = std::env::var("SCALE0_SEED")
        .map_or_else(|_| RandomState::new().hash_one(0), |it| it.parse().unwrap());
    println!("SCALE0_SEED={seed}");
    let mut dice = Dice(seed);
    let pairs: Arc<Vec<Pair>> = Arc::new(
        (0..how_many())
            .map(|at| Pair::draw(at, &mut dice))
            .collect(),
    );

    let known = Arc::clone(&pairs);
    let origin = Origin::start(move |request| {
        let known = Arc::clone(&known);
        async move { answer(&known, &request).await }
    })
    .await;
    let scale0 = Scale0::start(&site(&origin, "[log]\naccess = \"off\"\n")).await;

    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        let clients = [scale0.client().await, scale0.client().await];
        workers.spawn(meet(Arc::clone(&pairs), worker, clients));
    }
    let shared: usize = workers.join_all().await.into_iter().sum();
    // Were nothing ever shared, this test would say nothing.
    println!("{shared} of {} pairs shared their response", pairs.len());
    assert!(pairs.len() / 20 < shared);
}

/// Plays every [`WORKERS`]th pair. Returns how many of them shared their response.
async fn meet(pairs: Arc<Vec<Pair>>, worker: usize, [mut one, mut two]: [Client; 2]) -> usize {
    let mut shared = 0;
    for at in (worker..pairs.len()).step_by(WORKERS) {
        let pair = &pairs[at];
        let [first, second] = &pair.asked;
        one.send(first.message(at)).await.unwrap();
        let (to_first, to_second);
        if pair.together {
            two.send(second.message(at)).await.unwrap();
            to_first = one.response().await;
            to_second = two.response().await;
        } else {
            to_first = one.response().await;
            two.send(second.message(at)).await.unwrap();
            to_second = two.response().await;
        }
        for (mine, theirs, response) in [(first, second, to_first), (second, first, to_second)] {
            let owners = owners(&response.head, &response.text());
            if owners.iter().all(|owner| *owner == mine.user) {
                continue;
            }
            shared += 1;
            assert!(
                owners.iter().all(|owner| *owner == theirs.user),
                "one response, two owners: {owners:?} in the answer to {}\n{response:?}\n{pair:#?}",
                mine.user
            );
            assert!(
                may_have(mine, theirs, &pair.response),
                "{} was given what was made for {}\n{:?}\n{pair:#?}",
                mine.user,
                theirs.user,
                response.head,
            );
        }
    }
    shared
}

/// Whose response this is, from every place where the origin put a name. At least one.
fn owners(head: &Head, body: &str) -> Vec<String> {
    let mut owners = vec![head.field("x-owner").expect("the origin's").to_owned()];
    if !body.is_empty() {
        owners.push(body.to_owned());
    }
    owners.extend(head.field("set-cookie").map(str::to_owned));
    owners
}

/// Whether `reader` may be given the response that was made for `asker`.
fn may_have(reader: &Asked, asker: &Asked, response: &Made) -> bool {
    let fields = |name: &str| {
        let of_name = response.fields.iter().filter(|(field, _)| *field == name);
        of_name.map(|(_, value)| *value).collect::<Vec<_>>()
    };
    // RFC 9213 §2.2: the targeted field, where there is one, stands for Cache-Control and Expires.
    let targeted = fields("cdn-cache-control");
    let governing = if targeted.is_empty() {
        fields("cache-control")
    } else {
        targeted.clone()
    };
    let directives = directives(&governing);
    let has = |name: &str| directives.iter().any(|(directive, _)| directive == name);
    // RFC 9111 §4.2.1: where a directive comes twice, the first counts, or the response is stale.
    let seconds = |name: &str| {
        let found = directives.iter().find(|(directive, _)| directive == name);
        found.map(|(_, value)| value.parse::<u64>().unwrap_or(0))
    };

    // §4: the same target, a method that may be answered from what was stored, and a stored response that came of a GET.
    let is_same_target = reader.host == asker.host && reader.query == asker.query;
    if !is_same_target || asker.method != "GET" || reader.method == "POST" {
        return false;
    }
    // §3: what must not be stored. §5.2.2.3: `must-understand` overrules `no-store` for a status that is understood.
    if asker.cache_control == Some("no-store")
        || (has("no-store") && !has("must-understand"))
        || has("private")
        || fields("content-type").contains(&"text/event-stream")
    {
        return false;
    }
    // §3.5: to a request with credentials.
    if asker.authorization.is_some()
        && !(has("public") || has("must-revalidate") || has("s-maxage"))
    {
        return false;
    }
    // §4 and §5.2.1: not without validation, so not to those who wait.
    if has("no-cache") || matches!(reader.cache_control, Some("no-cache" | "max-age=0")) {
        return false;
    }
    // §4.1.
    for names in fields("vary") {
        for name in names.split(',') {
            let name = name.trim().to_ascii_lowercase();
            if name == "*" || reader.field(&name) != asker.field(&name) {
                return false;
            }
        }
    }
    // §4.2: fresh by its own words …
    let age = fields("age").first().map_or(0, |age| age.parse().unwrap());
    if let Some(lifetime) = seconds("s-maxage").or_else(|| seconds("max-age")) {
        return age < lifetime;
    }
    if targeted.is_empty()
        && let Some(expires) = fields("expires").first()
    {
        return *expires == EXPIRES[0];
    }
    // … or, §4.2.2, by a guess; which Scale0 makes only where nothing hints at a person.
    let is_plain = |asked: &Asked| asked.authorization.is_none() && asked.cookie.is_none();
    let is_guessable = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501]
        .contains(&response.status)
        || has("public");
    is_guessable
        && !fields("last-modified").is_empty()
        && fields("set-cookie").is_empty()
        && is_plain(reader)
        && is_plain(asker)
}

/// Names in lower case, and values without quotes.
fn directives(lines: &[&str]) -> Vec<(String, String)> {
    let mut directives = Vec::new();
    let mut rest = lines.join(",");
    while !rest.is_empty() {
        let mut is_quoted = false;
        let end = rest.find(|it| {
            is_quoted ^= it == '"';
            it == ',' && !is_quoted
        });
        let after = end.map_or_else(String::new, |end| rest[end + 1..].to_owned());
        let directive = &rest[..end.unwrap_or(rest.len())];
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let value = value.trim().trim_matches('"');
        directives.push((name.trim().to_ascii_lowercase(), value.to_owned()));
        rest = after;
    }
    directives
}

/// Two requests for the same address, and how the origin answers there.
#[derive(Debug)]
struct Pair {
    asked: [Asked; 2],
    response: Made,
    together: bool,
}

#[derive(Debug)]
struct Asked {
    user: String,
    method: &'static str,
    host: &'static str,
    query: &'static str,
    cookie: Option<String>,
    authorization: Option<String>,
    language: Option<&'static str>,
    cache_control: Option<&'static str>,
    condition: bool,
}

/// A response but for the name of its owner, which stands in `X-Owner`, in the content and in `Set-Cookie` if there is one.
#[derive(Debug)]
struct Made {
    status: u16,
    fields: Vec<(&'static str, &'static str)>,
}

impl Pair {
    fn draw(at: usize, dice: &mut Dice) -> Self {
        Self {
            asked: [
                Asked::draw(format!("user-{at}-one"), dice),
                Asked::draw(format!("user-{at}-two"), dice),
            ],
            response: Made::draw(dice),
            together: dice.one_in(2),
        }
    }
}

impl Asked {
    fn draw(user: String, dice: &mut Dice) -> Self {
        let cookie = dice.one_in(3).then(|| match dice.one_in(4) {
            true => "theme=dark".to_owned(),
            false => format!("session={user}"),
        });
        Self {
            method: match dice.below(20) {
                0 => "POST",
                1 => "HEAD",
                _ => "GET",
            },
            host: if dice.one_in(30) {
                "b.example"
            } else {
                "a.example"
            },
            query: if dice.one_in(30) { "?b" } else { "" },
            cookie,
            authorization: dice.one_in(4).then(|| format!("Bearer {user}")),
            language: dice.maybe(2, &["de", "en"]),
            cache_control: dice.maybe(10, REQUEST_CACHE_CONTROL),
            condition: dice.one_in(10),
            user,
        }
    }

    /// Its fields but those of no interest to `Vary`.
    fn field(&self, name: &str) -> Option<&str> {
        match name {
            "cookie" => self.cookie.as_deref(),
            "authorization" => self.authorization.as_deref(),
            "accept-language" => self.language,
            "x-user" => Some(&self.user),
            _ => unreachable!("no such field in VARY"),
        }
    }

    fn message(&self, at: usize) -> String {
        let Self {
            method,
            query,
            host,
            user,
            ..
        } = self;
        let mut message =
            format!("{method} /{at}{query} HTTP/1.1\r\nHost: {host}\r\nX-User: {user}\r\n");
        let fields = ["cookie", "authorization", "accept-language"];
        for (name, value) in fields
            .iter()
            .filter_map(|name| Some((name, self.field(name)?)))
        {
            _ = write!(message, "{name}: {value}\r\n");
        }
        if let Some(value) = self.cache_control {
            _ = write!(message, "Cache-Control: {value}\r\n");
        }
        if self.condition {
            message += "If-None-Match: \"tag\"\r\n";
        }
        if *method == "POST" {
            message += "Content-Length: 0\r\n";
        }
        message + "\r\n"
    }
}

impl Made {
    fn draw(dice: &mut Dice) -> Self {
        let mut fields = Vec::new();
        let mut add =
            |name, value: Option<&'static str>| fields.extend(value.map(|value| (name, value)));
        if !dice.one_in(6) {
            add("cache-control", Some(dice.pick(CACHE_CONTROL)));
        }
        add("cache-control", dice.maybe(10, CACHE_CONTROL));
        add("cdn-cache-control", dice.maybe(12, TARGETED));
        add("vary", dice.maybe(4, VARY));
        add("vary", dice.maybe(20, VARY));
        add("expires", dice.maybe(5, EXPIRES));
        add("age", dice.maybe(12, &["10", "100"]));
        add(
            "last-modified",
            dice.maybe(4, &["Sat, 01 Jan 2000 00:00:00 GMT"]),
        );
        add("etag", dice.maybe(4, &["\"tag\""]));
        add("content-type", dice.maybe(15, &["text/event-stream"]));
        add("set-cookie", dice.maybe(5, &["the owner"]));
        Self {
            status: if dice.one_in(8) {
                dice.pick(STATUSES)
            } else {
                200
            },
            fields,
        }
    }
}

async fn answer(pairs: &[Pair], request: &Request) -> Answer<support::Content> {
    let at: usize = request.uri().path()[1..].parse().unwrap();
    let Pair {
        response, together, ..
    } = &pairs[at];
    if *together {
        tokio::time::sleep(TOGETHER).await;
    }
    let user = request.headers()["x-user"].to_str().unwrap();
    let mut answer = Answer::builder()
        .status(response.status)
        .header("x-owner", user);
    for (name, value) in &response.fields {
        answer = answer.header(*name, if *name == "set-cookie" { user } else { value });
    }
    answer.body(text(user.to_owned())).unwrap()
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).expect("below a usize")
    }

    fn one_in(&mut self, bound: usize) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len())]
    }

    fn maybe<T: Copy>(&mut self, one_in: usize, values: &[T]) -> Option<T> {
        self.one_in(one_in).then(|| self.pick(values))
    }
}

#[tokio::test]
async fn what_a_client_takes_away_on_the_way_is_not_what_its_answer_is_stored_under() {
    let origin = Origin::start(|request: Request| async move {
        let language = request.headers().get("accept-language");
        let language = language
            .map_or("none", |value| value.to_str().unwrap())
            .to_owned();
        Answer::builder()
            .header("cache-control", "max-age=60")
            .header("vary", "accept-language")
            .body(text(language))
            .unwrap()
    })
    .await;
    let scale0 = Scale0::start(&site(&origin, "[log]\naccess = \"off\"\n")).await;
    let mut client = scale0.client().await;
    let poison = "Accept-Language: de\r\nConnection: accept-language\r\n";
    assert_eq!(client.get_with("/", poison).await.text(), "none");
    let honest = "Accept-Language: de\r\n";
    assert_eq!(client.get_with("/", honest).await.text(), "de");
}
