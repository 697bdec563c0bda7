//! Another broker of the site, to which peers are sent when this one leaves.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::address::{Endpoint, PublicKey};
use super::names::Name;
use super::nearest;

/// Where another broker listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OtherBroker {
    /// Its node's name, by which peers that know it already tell.
    pub(crate) node: Name,
    /// For frontends. None: they are not told of it.
    pub(crate) frontends: Option<Endpoint>,
    /// For backends, likewise. One of the two is there.
    pub(crate) backends: Option<Endpoint>,
    /// Its CURVE key.
    pub(crate) public_key: Option<PublicKey>,
}

const KEYS: &[&str] = &["node", "frontends", "backends", "public_key"];

/// What stands here, in full.
const EXPECTED: &str = "{ node = \"fra-2\", frontends = \"tcp://10.0.0.6:5701\", backends = \"tcp://10.0.0.6:5702\", public_key = \"…\" }";

impl<'de> Deserialize<'de> for OtherBroker {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OtherVisitor)
    }
}

struct OtherVisitor;

impl<'de> Visitor<'de> for OtherVisitor {
    type Value = OtherBroker;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OtherBroker, A::Error> {
        let mut node = None;
        let (mut frontends, mut backends, mut public_key) = (None, None, None);
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "node" => node = Some(map.next_value()?),
                "frontends" => frontends = Some(map.next_value()?),
                "backends" => backends = Some(map.next_value()?),
                "public_key" => public_key = Some(map.next_value()?),
                _ => {
                    let near = nearest::nearest(&key, KEYS)
                        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                    return Err(A::Error::custom(format!(
                        "expected {EXPECTED}, found the key `{key}`{near}"
                    )));
                }
            }
        }
        let lacks = |what| A::Error::custom(format!("expected {EXPECTED}, found {what}"));
        if frontends.is_none() && backends.is_none() {
            return Err(lacks("neither `frontends` nor `backends`"));
        }
        Ok(OtherBroker {
            node: node.ok_or_else(|| lacks("no `node`"))?,
            frontends,
            backends,
            public_key,
        })
    }
}

impl Serialize for OtherBroker {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("node", &self.node)?;
        for (key, endpoint) in [("frontends", &self.frontends), ("backends", &self.backends)] {
            if let Some(endpoint) = endpoint {
                map.serialize_entry(key, endpoint)?;
            }
        }
        if let Some(key) = &self.public_key {
            map.serialize_entry("public_key", &key.to_string())?;
        }
        map.end()
    }
}
