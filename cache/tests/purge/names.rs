//! Whatever is purged, what is hit is what the names say.

use std::sync::Arc;

use proptest::prelude::*;
use scale0_cache::purge::{Epoch, Purge, Purged, Purges, Target};

use super::{hard, labels, tag};

/// A stored response as people know it.
#[derive(Debug)]
struct Response {
    path: String,
    query: String,
    tags: Vec<String>,
    born: usize,
}

impl Response {
    fn is_meant_by(&self, target: &Target) -> bool {
        match target {
            Target::Url { path_and_query, .. } => {
                *path_and_query == format!("{}{}", self.path, self.query)
            }
            Target::Prefix { path, .. } => {
                let prefix = path.strip_suffix('/').unwrap_or(path);
                let rest = self.path.strip_prefix(prefix);
                rest.is_some_and(|rest| {
                    rest.starts_with('/') || (rest.is_empty() && !prefix.ends_with('/'))
                })
            }
            Target::Tag(tag) => self.tags.contains(tag),
            Target::All => true,
        }
    }

    /// By a list of all purges that ever were.
    fn purged(&self, purges: &[Purge]) -> Purged {
        let since = purges.iter().skip(self.born);
        let meant = since.filter(|purge| self.is_meant_by(&purge.target));
        let how = meant.map(|purge| {
            if purge.soft {
                Purged::Soft
            } else {
                Purged::Hard
            }
        });
        how.max().unwrap_or(Purged::No)
    }
}

fn path() -> impl Strategy<Value = String> {
    "(/[ab]{1,2}){0,3}/?".prop_map(|path| if path.is_empty() { "/".into() } else { path })
}

fn query() -> impl Strategy<Value = String> {
    "(\\?[/a]{0,2})?"
}

fn response() -> impl Strategy<Value = Response> {
    let tags = proptest::collection::vec("[a-c]", 0..3);
    (path(), query(), tags, 0_usize..20).prop_map(|(path, query, tags, born)| Response {
        path,
        query,
        tags,
        born,
    })
}

fn purge() -> impl Strategy<Value = Purge> {
    let authority = || "a".to_owned();
    let target = prop_oneof![
        4 => (path(), query()).prop_map(move |(path, query)| Target::Url { authority: authority(), path_and_query: path + &query }),
        4 => path().prop_map(move |path| Target::Prefix { authority: authority(), path }),
        4 => "[a-d]".prop_map(Target::Tag),
        1 => Just(Target::All),
    ];
    (target, any::<bool>()).prop_map(|(target, soft)| Purge { target, soft })
}

proptest! {
    #[test]
    fn what_is_meant_is_purged_and_nothing_else(
        purges in proptest::collection::vec(purge(), 0..20),
        responses in proptest::collection::vec(response(), 1..10),
    ) {
        let table = Purges::in_memory(Arc::default());
        let mut epochs = vec![table.now()];
        epochs.extend(purges.iter().map(|purge| table.purge(std::slice::from_ref(purge)).unwrap()));
        for response in responses {
            let born = epochs[response.born.min(purges.len())];
            let labels = labels(&format!("{}{}", response.path, response.query), &response.tags.join(","));
            prop_assert_eq!(table.judge(born, &labels).purged, response.purged(&purges), "{:?}", response);
        }
    }
}

#[test]
fn a_fetch_without_a_response_yet_may_have_the_purged_tag() {
    let purges = Purges::in_memory(Arc::default());
    let born = purges.now();
    let target = scale0_cache::purge::Labels::of_target("a", "/");
    purges.purge(&[hard(tag("one"))]).unwrap();
    assert_eq!(purges.judge(born, &target).purged, Purged::Unsure);
    let of_response = target.with_tags(&http::HeaderMap::new());
    assert_eq!(purges.judge(born, &of_response).purged, Purged::No);
}

#[test]
fn purges_given_together_take_one_epoch() {
    let purges = Purges::in_memory(Arc::default());
    let tags = ["one", "two"].map(|name| hard(tag(name)));
    assert_eq!(purges.purge(&tags).unwrap(), Epoch::new(purges.now().get()));
    assert_eq!(purges.now().get(), 1);
    for name in ["one", "two"] {
        let judged = purges.judge(Epoch::default(), &labels("/", name));
        assert_eq!(judged.purged, Purged::Hard);
    }
}
