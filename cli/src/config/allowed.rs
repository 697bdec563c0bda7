//! One entry of the allow list: a key, whose it is, and what it may do.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::address::PublicKey;
use super::names::{Name, ServiceName};
use super::nearest;
use super::text::{List, Text, deserialize_text, serialize_text};

/// One key that may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Allowed {
    /// What its owner is called in status and logs.
    pub(crate) name: Name,
    /// The key.
    pub(crate) public_key: PublicKey,
    /// What it may be. Not empty.
    pub(crate) may: Vec<May>,
    /// As a backend, which services it may offer: not empty if it may be one, and empty if not.
    pub(crate) services: Vec<ServiceName>,
}

/// What a key may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum May {
    /// A frontend.
    Frontend,
    /// A backend: an SDK's or a bridge.
    Backend,
}

impl Text for May {
    const EXPECTED: &'static str = "\"frontend\" or \"backend\"";

    fn read(text: &str) -> Result<Self, &'static str> {
        match text {
            "frontend" => Ok(Self::Frontend),
            "backend" => Ok(Self::Backend),
            "bridge" => Err("to its brokers a bridge is a \"backend\""),
            "peer" => Err("not in this version"),
            _ => Err(""),
        }
    }
}

impl fmt::Display for May {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frontend => "frontend",
            Self::Backend => "backend",
        })
    }
}

deserialize_text!(May);
serialize_text!(May);

const KEYS: &[&str] = &["name", "public_key", "may", "services"];

/// What stands here, in full.
const EXPECTED: &str = "{ name = \"shop-1\", public_key = \"…\", may = \"backend\", services = [\"www.example.com\"] }";

impl<'de> Deserialize<'de> for Allowed {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AllowedVisitor)
    }
}

struct AllowedVisitor;

impl<'de> Visitor<'de> for AllowedVisitor {
    type Value = Allowed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(EXPECTED)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Allowed, A::Error> {
        let (mut name, mut public_key) = (None, None);
        let (mut may, mut services) = (List(Vec::new()), List(Vec::new()));
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "name" => name = Some(map.next_value()?),
                "public_key" => public_key = Some(map.next_value()?),
                "may" => may = map.next_value()?,
                "services" => services = map.next_value()?,
                "site" => return Err(A::Error::custom("`site` in `allow` is not in this version")),
                _ => {
                    let near = nearest::nearest(&key, KEYS)
                        .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
                    return Err(A::Error::custom(format!(
                        "expected {EXPECTED}, found the key `{key}`{near}"
                    )));
                }
            }
        }
        let lacks = |key| A::Error::custom(format!("expected {EXPECTED}, found no `{key}`"));
        let allowed = Allowed {
            name: name.ok_or_else(|| lacks("name"))?,
            public_key: public_key.ok_or_else(|| lacks("public_key"))?,
            may: may.0,
            services: services.0,
        };
        let name = &allowed.name;
        let is_backend = allowed.may.contains(&May::Backend);
        match (is_backend, allowed.services.is_empty()) {
            _ if allowed.may.is_empty() => Err(lacks("may")),
            (true, true) => Err(A::Error::custom(format!(
                "\"{name}\" may be a backend, and no `services` say of what"
            ))),
            (false, false) => Err(A::Error::custom(format!(
                "\"{name}\" has `services`, which only a backend offers, and may not be one"
            ))),
            _ => Ok(allowed),
        }
    }
}

impl Serialize for Allowed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("public_key", &self.public_key)?;
        map.serialize_entry("may", &self.may)?;
        if !self.services.is_empty() {
            map.serialize_entry("services", &self.services)?;
        }
        map.end()
    }
}
