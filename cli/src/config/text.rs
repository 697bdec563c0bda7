//! How one setting is read: the traits and visitors that every kind of value shares.

use std::fmt;
use std::marker::PhantomData;

use super::redact;
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{
    Deserialize, Deserializer, Error, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};

/// A setting that is written as text.
///
/// [`Text::EXPECTED`] completes the sentence "expected …", and the reason of a refusal completes "found "x": …". Together
/// they are the whole message, the same for a file, a variable and `--set`.
pub(super) trait Text: Sized {
    /// What stands here, with an example.
    const EXPECTED: &'static str;

    /// Whether the text may be a secret by mistake, and is not to be repeated in a message.
    const MAY_BE_SECRET: bool = false;

    /// Reads the text, or says in few words what is wrong with it; nothing where `EXPECTED` already says it.
    fn read(text: &str) -> Result<Self, &'static str>;
}

/// The sentence for a text that is not what stands here.
pub(super) fn misfit<T: Text>(text: &str, why: &str) -> String {
    let found = if T::MAY_BE_SECRET {
        "another text".to_owned()
    } else {
        format!("{:?}", redact::addresses(text))
    };
    let reason = if why.is_empty() {
        String::new()
    } else {
        format!(": {why}")
    };
    format!("expected {}, found {found}{reason}", T::EXPECTED)
}

/// Reads a [`Text`] wherever serde finds a string; anything else is answered with what was expected.
pub(super) struct TextVisitor<T>(PhantomData<T>);

impl<T> TextVisitor<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: Text> Visitor<'_> for TextVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<T, E> {
        T::read(text).map_err(|why| E::custom(misfit::<T>(text, why)))
    }
}

/// Gives the [`Text`] types their `Deserialize`.
macro_rules! deserialize_text {
    ($($type:ty),+ $(,)?) => {$(
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any($crate::config::text::TextVisitor::<$type>::new())
            }
        }
    )+};
}
pub(super) use deserialize_text;

/// Writes a value as the text it is read from.
macro_rules! serialize_text {
    ($($type:ty),+ $(,)?) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }
    )+};
}
pub(super) use serialize_text;

/// One or several: where a list may stand, a single value is accepted.
#[derive(Clone, Debug)]
pub(super) struct List<T>(pub(super) Vec<T>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ListVisitor(PhantomData))
    }
}

struct ListVisitor<T>(PhantomData<T>);

/// Hands whatever is not a list to the element's own reader, so that the message is the element's.
macro_rules! single {
    ($($visit:ident: $type:ty),+) => {$(
        fn $visit<E: Error>(self, value: $type) -> Result<Self::Value, E> {
            Ok(List(vec![T::deserialize(value.into_deserializer())?]))
        }
    )+};
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for ListVisitor<T> {
    type Value = List<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("one value or a list of them")
    }

    single!(visit_str: &str, visit_i64: i64, visit_u64: u64, visit_f64: f64, visit_bool: bool);

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        Ok(List(vec![T::deserialize(MapAccessDeserializer::new(map))?]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Self::Value, A::Error> {
        Vec::deserialize(SeqAccessDeserializer::new(seq)).map(List)
    }
}
