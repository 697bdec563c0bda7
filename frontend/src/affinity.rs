//! Which requests belong together, and are served by one backend as long as that is not overloaded by them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use http::header::{self, HeaderMap, HeaderName};
use scale0_wire::ServiceId;

use crate::fields;

/// What requests have in common that belong to one backend. Written `off`, `path`, `client`, `header:Name` or `cookie:name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Affinity {
    /// None belong together.
    #[default]
    Off,
    /// Their path, without the query.
    Path,
    /// Their client's address.
    Client,
    /// The value of this field, which must be one that backends see; without it they belong to nobody.
    Header(HeaderName),
    /// The value of this cookie, the first of its name; likewise.
    Cookie(String),
}

impl Affinity {
    /// What a request of this service says on the wire; 0: it belongs to nobody.
    pub(crate) fn of(
        &self,
        service: ServiceId,
        headers: &HeaderMap,
        path: &str,
        client: IpAddr,
    ) -> u64 {
        match self {
            Self::Off => 0,
            Self::Path => service.affinity(path.as_bytes()),
            Self::Client => match client {
                IpAddr::V4(client) => service.affinity(&client.octets()),
                IpAddr::V6(client) => service.affinity(&client.octets()),
            },
            Self::Header(name) => match headers.get(name) {
                Some(value) => service.affinity(value.as_bytes()),
                None => 0,
            },
            Self::Cookie(name) => match cookie(headers, name) {
                Some(value) => service.affinity(value),
                None => 0,
            },
        }
    }
}

/// The value of the first cookie of that name (RFC 6265 §5.4: pairs, each `; ` from the next). There is one field of them at most:
/// [`fields::crossing`] has joined what HTTP/2 sends in crumbs.
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get(header::COOKIE)?.as_bytes();
    let mut pairs = pairs.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name.as_bytes())?.strip_prefix(b"="))
}

impl FromStr for Affinity {
    type Err = &'static str;

    /// Reads it, or says what is wrong; nothing where it is none of its forms.
    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text.split_once(':') {
            None if text == "off" => Ok(Self::Off),
            None if text == "path" => Ok(Self::Path),
            None if text == "client" => Ok(Self::Client),
            None if text == "header" || text == "cookie" => Err("behind a colon it says which one"),
            Some(("header", name)) => {
                let name = HeaderName::from_str(name)
                    .map_err(|_| "what follows \"header:\" is no field's name")?;
                match fields::crosses(&name) {
                    true if name == header::COOKIE => {
                        Err("all cookies together change too often; name one of them: \"cookie:…\"")
                    }
                    true => Ok(Self::Header(name)),
                    false => Err("this field stays behind at the frontend, and is not looked at"),
                }
            }
            Some(("cookie", name)) => match HeaderName::from_str(name) {
                // Names of cookies are tokens as those of fields are, but for their case.
                Ok(_) => Ok(Self::Cookie(name.to_owned())),
                Err(_) => Err("what follows \"cookie:\" is no cookie's name"),
            },
            Some(_) | None => Err(""),
        }
    }
}

impl fmt::Display for Affinity {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => to.write_str("off"),
            Self::Path => to.write_str("path"),
            Self::Client => to.write_str("client"),
            Self::Header(name) => write!(to, "header:{name}"),
            Self::Cookie(name) => write!(to, "cookie:{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const NOBODY: u64 = 0;

    fn of(affinity: &str, fields: &[(&'static str, &'static str)]) -> u64 {
        let fields = fields.iter().map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        });
        let affinity: Affinity = affinity.parse().unwrap();
        let client = IpAddr::from([192, 0, 2, 1]);
        affinity.of(ServiceId::of(b"shop"), &fields.collect(), "/a/b", client)
    }

    #[test]
    fn requests_belong_together_by_what_the_route_says_and_by_nothing_else() {
        let user = |value| of("header:X-User", &[("x-user", value), ("accept", "*/*")]);
        assert_eq!(user("ann"), of("header:x-user", &[("x-user", "ann")]));
        assert_ne!(user("ann"), user("Ann"));
        assert_eq!(of("header:x-user", &[]), NOBODY);

        let cart = |cookies| of("cookie:cart", &[("cookie", cookies)]);
        assert_eq!(cart("cart=7"), cart("a=1; cart=7; cart=8"));
        assert_ne!(cart("cart=7"), cart("cart=8"));
        for other in ["cart", "Cart=7", "carts=7", "x=cart=7", ""] {
            assert_eq!(cart(other), NOBODY, "{other}");
        }
        assert_eq!(of("cookie:cart", &[]), NOBODY);

        assert_eq!(of("off", &[("cookie", "cart=7")]), NOBODY);
        assert_ne!(of("path", &[]), of("client", &[]));
        assert_ne!(of("client", &[]), NOBODY);
    }

    #[test]
    fn every_frontend_says_the_same_and_every_service_something_else() {
        // Written down: builds of other days have to agree.
        assert_eq!(
            ServiceId::of(b"shop").affinity(b"ann"),
            0x58fb_b0fc_8286_9093
        );
        assert_ne!(
            ServiceId::of(b"shop").affinity(b"ann"),
            ServiceId::of(b"blog").affinity(b"ann")
        );
    }

    #[test]
    fn what_is_read_is_written_in_the_same_form() {
        for text in ["off", "path", "client", "header:x-user", "cookie:SID"] {
            assert_eq!(text.parse::<Affinity>().unwrap().to_string(), text);
        }
        for (text, why) in [
            ("", ""),
            ("on", ""),
            ("ip", ""),
            ("query:a", ""),
            ("header", "behind a colon it says which one"),
            ("header:", "what follows \"header:\" is no field's name"),
            ("header:a b", "what follows \"header:\" is no field's name"),
            ("cookie:a=b", "what follows \"cookie:\" is no cookie's name"),
            (
                "header:X-Forwarded-For",
                "this field stays behind at the frontend, and is not looked at",
            ),
            (
                "header:Host",
                "this field stays behind at the frontend, and is not looked at",
            ),
            (
                "header:Cookie",
                "all cookies together change too often; name one of them: \"cookie:…\"",
            ),
        ] {
            assert_eq!(text.parse::<Affinity>(), Err(why), "{text}");
        }
    }
}
