//! What a response can be purged by.

use http::HeaderMap;

/// Labels for this many segments of a path below its root; more is noted as `DEEPER`.
pub const MAX_PREFIXES: usize = 32;

/// Labels for this many tags of a response; more is noted as `MORE_TAGS`. They take 4 KiB then, which is less than the fields
/// themselves do as tags go.
pub const MAX_TAGS: usize = 512;

/// In place of the tags that have no label of their own: too many, or not known yet. A purge of any tag makes it unsure.
pub(super) const MORE_TAGS: u64 = 0;

/// In place of the prefixes of more than [`MAX_PREFIXES`] segments. A purge of any such prefix makes it unsure.
pub(super) const DEEPER: u64 = 1;

/// Hashes are at least this, so that none is one of the above.
const FIRST_HASH: u64 = 2;

/// The first byte of what is hashed: a tag is never a path.
const URL: u8 = 1;
const PREFIX: u8 = 2;
const TAG: u8 = 3;

/// What a stored response can be purged by, as hashes of 64 bits: its URL, each prefix of its path, each of its tags.
///
/// Two things of one hash are purged together; nothing else can come of that. The hashes are the same in every process, and may be
/// stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Labels(Box<[u64]>);

impl Labels {
    /// Those of a fetch whose response is not here yet: as it may have any tag, a purge of any tag makes it [`Unsure`]. Both parts
    /// are in the form in which the request is keyed.
    ///
    /// [`Unsure`]: super::Purged::Unsure
    pub fn of_target(authority: &str, path_and_query: &str) -> Self {
        let path = path_and_query
            .split_once('?')
            .map_or(path_and_query, |(path, _)| path);
        let mut labels = vec![MORE_TAGS, of_url(authority, path_and_query)];
        // Hashed once, and asked for the hash so far at each segment's end.
        let mut hasher = hasher(PREFIX, authority);
        let mut hashed = 0;
        let slashes = path.match_indices('/').map(|(at, _)| at);
        let whole = (!path.ends_with('/')).then_some(path.len());
        for (segments, end) in slashes.chain(whole).enumerate() {
            if MAX_PREFIXES < segments {
                labels.push(DEEPER);
                break;
            }
            hasher.update(&path.as_bytes()[hashed..end]);
            hashed = end;
            labels.push(finish(&hasher));
        }
        Self(labels.into())
    }

    /// The same with the tags of its response: the values of `Surrogate-Key` are separated by blanks, those of `Cache-Tag` by
    /// commas.
    #[must_use]
    pub fn with_tags(&self, response: &HeaderMap) -> Self {
        let values = |name| response.get_all(name).into_iter();
        let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
        let surrogate_keys =
            values("surrogate-key").flat_map(|value| value.as_bytes().split(blank));
        let cache_tags = values("cache-tag")
            .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
            .map(<[u8]>::trim_ascii);
        let mut tags: Vec<u64> = surrogate_keys
            .chain(cache_tags)
            .filter(|tag| !tag.is_empty())
            .map(of_tag)
            .collect();
        tags.sort_unstable();
        tags.dedup();
        if MAX_TAGS < tags.len() {
            tags.truncate(MAX_TAGS);
            tags.push(MORE_TAGS);
        }
        let target = self.0.iter().copied().filter(|label| *label != MORE_TAGS);
        Self(target.chain(tags).collect())
    }

    /// The labels that [`Labels::as_slice`] told.
    pub fn from_slice(labels: &[u64]) -> Self {
        Self(labels.into())
    }

    /// As numbers, to be stored.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }
}

/// The label of a URL.
pub(super) fn of_url(authority: &str, path_and_query: &str) -> u64 {
    finish(hasher(URL, authority).update(path_and_query.as_bytes()))
}

/// The label of a prefix. `None`: it has too many segments for one.
pub(super) fn of_prefix(authority: &str, path: &str) -> Option<u64> {
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments = path.bytes().filter(|byte| *byte == b'/').count();
    (segments <= MAX_PREFIXES).then(|| finish(hasher(PREFIX, authority).update(path.as_bytes())))
}

/// The label of a tag.
pub(super) fn of_tag(tag: &[u8]) -> u64 {
    finish(hasher(TAG, "").update(tag))
}

fn hasher(kind: u8, authority: &str) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    // The length first, so that no two pairs of authority and path have the same bytes.
    hasher.update(&[kind]);
    hasher.update(&(authority.len() as u64).to_le_bytes());
    hasher.update(authority.as_bytes());
    hasher
}

fn finish(hasher: &blake3::Hasher) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_le_bytes(first).max(FIRST_HASH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn has(labels: &Labels, label: Option<u64>) -> bool {
        labels.as_slice().contains(&label.unwrap())
    }

    fn tagged(lines: &[(&'static str, &str)]) -> Labels {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, value.parse().unwrap());
        }
        Labels::of_target("a", "/").with_tags(&headers)
    }

    #[test]
    fn a_prefix_ends_where_a_segment_ends() {
        let labels = Labels::of_target("example.com", "/shop/shoes/red?size=9/10");
        for prefix in [
            "",
            "/",
            "/shop",
            "/shop/",
            "/shop/shoes",
            "/shop/shoes/red",
            "/shop/shoes/red/",
        ] {
            assert!(has(&labels, of_prefix("example.com", prefix)), "{prefix}");
        }
        for prefix in [
            "/sho",
            "/shop/shoe",
            "/shoes",
            "/shop/shoes/red?size=9",
            "//",
        ] {
            assert!(!has(&labels, of_prefix("example.com", prefix)), "{prefix}");
        }
        assert!(!has(&labels, of_prefix("example.org", "/shop")));
        assert!(!has(&labels, of_prefix("example.co", "m/shop")));
    }

    #[test]
    fn the_query_is_part_of_the_url_and_of_no_prefix() {
        let labels = Labels::of_target("a", "/b?c");
        assert!(has(&labels, Some(of_url("a", "/b?c"))));
        assert!(!has(&labels, Some(of_url("a", "/b"))));
        assert!(has(&labels, of_prefix("a", "/b")));
    }

    #[test]
    fn tags_are_separated_as_each_field_has_it() {
        let labels = tagged(&[
            ("surrogate-key", "one  two,2"),
            ("surrogate-key", "three"),
            ("cache-tag", "four , five six,,"),
        ]);
        for tag in ["one", "two,2", "three", "four", "five six"] {
            assert!(has(&labels, Some(of_tag(tag.as_bytes()))), "{tag}");
        }
        for tag in ["", "two", "five", "One", "/"] {
            assert!(!has(&labels, Some(of_tag(tag.as_bytes()))), "{tag}");
        }
        assert!(!labels.as_slice().contains(&MORE_TAGS));
    }

    #[test]
    fn a_tag_is_not_the_path_it_looks_like() {
        let labels = tagged(&[("cache-tag", "/b")]);
        assert!(!has(&labels, Some(of_url("", "/b"))) && !has(&labels, of_prefix("", "/b")));
    }

    #[test]
    fn what_has_no_label_of_its_own_is_noted_as_such() {
        let deep = "/s".repeat(MAX_PREFIXES);
        assert!(!Labels::of_target("a", &deep).as_slice().contains(&DEEPER));
        assert!(of_prefix("a", &deep).is_some());
        let deeper = format!("{deep}/s");
        assert!(Labels::of_target("a", &deeper).as_slice().contains(&DEEPER));
        assert_eq!(of_prefix("a", &deeper), None);
        assert!(has(&Labels::of_target("a", &deeper), of_prefix("a", &deep)));

        let tags: Vec<String> = (0..=MAX_TAGS).map(|tag| tag.to_string()).collect();
        let most = tagged(&[("surrogate-key", &tags[1..].join(" "))]);
        assert!(!most.as_slice().contains(&MORE_TAGS));
        let more = tagged(&[("surrogate-key", &tags.join(" "))]);
        assert!(more.as_slice().contains(&MORE_TAGS));
        assert_eq!(more.as_slice().len(), 3 + MAX_TAGS);
        let unknown = Labels::of_target("a", "/");
        assert!(unknown.as_slice().contains(&MORE_TAGS));
    }

    proptest! {
        #[test]
        fn a_path_has_the_labels_of_the_prefixes_it_is_under(
            path in "(/[ab]{0,2}){1,5}",
            prefix in "(/[ab]{0,2}){0,5}",
        ) {
            let within = |path: &str| if path.ends_with('/') { path.to_owned() } else { format!("{path}/") };
            let under = within(&path).starts_with(&within(&prefix));
            prop_assert_eq!(has(&Labels::of_target("a", &path), of_prefix("a", &prefix)), under);
        }
    }
}
