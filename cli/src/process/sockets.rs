//! The listening sockets of a process: those it was given, and those it binds.

use std::fmt::{self, Display};
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use scale0_frontend::Listener;
use serde::{Deserialize, Serialize};

use crate::config::Config;

/// What a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Whose {
    /// `frontend.http`
    Http,
    /// `admin.listen`
    Admin,
}

impl Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "frontend.http",
            Self::Admin => "admin.listen",
        })
    }
}

/// A socket that was open before this process began.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) listener: Listener,
    /// What it is for, if that was said.
    pub(super) whose: Option<Whose>,
    /// What it is called in a message.
    pub(super) label: String,
}

/// The sockets that the configuration names.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    pub(super) http: Vec<Listener>,
    pub(super) admin: Option<Listener>,
}

/// Sockets that are in use, and which of the given ones are among them.
#[derive(Debug, Default)]
pub(super) struct Claimed {
    pub(super) sockets: Sockets,
    /// By their places among the given.
    pub(super) used: Vec<usize>,
    /// The others, likewise.
    pub(super) unused: Vec<(usize, Given)>,
}

/// The sockets a service manager has opened for this process.
///
/// # Errors
/// When what it promises is not there, or no listening TCP socket.
pub(super) fn of_service_manager() -> anyhow::Result<Vec<Given>> {
    let given = scale0_transport::inherited()?.into_iter().map(|given| {
        let label = match given.name.as_str() {
            "" => format!("descriptor {}", given.number),
            name => format!("descriptor {} ({name})", given.number),
        };
        let listener = Listener::inherited(given.descriptor.into(), true);
        let listener = listener.with_context(|| format!("{label} of LISTEN_FDS"))?;
        let whose = match given.name.as_str() {
            "http" => Some(Whose::Http),
            "admin" => Some(Whose::Admin),
            // The name of the unit, as a rule.
            _ => None,
        };
        Ok(Given {
            listener,
            whose,
            label,
        })
    });
    given.collect()
}

/// Finds each address of the configuration among the given sockets, or binds it.
///
/// # Errors
/// When an address is taken, or not ours.
pub(super) fn claim(config: &Config, given: Vec<Given>) -> anyhow::Result<Claimed> {
    let http = config.frontend.iter().flat_map(|frontend| &frontend.http);
    let http = http.map(|address| (Whose::Http, *address));
    let admin = config.admin.iter().map(|it| (Whose::Admin, it.listen));
    let wanted: Vec<(Whose, SocketAddr)> = http.chain(admin).collect();
    let mut given: Vec<Option<Given>> = given.into_iter().map(Some).collect();
    let matches = matches(&wanted, &given);

    let mut claimed = Claimed::default();
    for ((whose, address), index) in wanted.into_iter().zip(matches) {
        let found = index.and_then(|index| given[index].take());
        let listener = match found {
            Some(given) => given.listener,
            None => Listener::bind(address)
                .with_context(|| format!("{whose}: cannot listen on {address}"))?,
        };
        claimed.used.extend(index);
        match whose {
            Whose::Http => claimed.sockets.http.push(listener),
            Whose::Admin => claimed.sockets.admin = Some(listener),
        }
    }
    let left = given.into_iter().enumerate();
    claimed.unused = left
        .filter_map(|(index, given)| Some((index, given?)))
        .collect();
    Ok(claimed)
}

/// Refuses sockets, from this place among the given on, that nothing is configured for: who connects there would wait for ever. A
/// second descriptor of one that is in use is none of those.
///
/// # Errors
/// Names the first.
pub(super) fn none_left(config: &Config, claimed: &Claimed, from: usize) -> anyhow::Result<()> {
    let (http, admin) = (&claimed.sockets.http, &claimed.sockets.admin);
    let in_use: Vec<SocketAddr> = http.iter().chain(admin).map(Listener::address).collect();
    let first = claimed
        .unused
        .iter()
        .find(|(index, given)| from <= *index && !in_use.contains(&given.listener.address()));
    let Some((_, first)) = first else {
        return Ok(());
    };
    let http = config.frontend.iter().flat_map(|frontend| &frontend.http);
    let admin = config.admin.iter().map(|admin| &admin.listen);
    let configured: Vec<String> = http.chain(admin).map(ToString::to_string).collect();
    let wanted = match first.whose {
        Some(whose) => whose.to_string(),
        None => format!("{} or {}", Whose::Http, Whose::Admin),
    };
    bail!(
        "{} of LISTEN_FDS listens on {}, which is no address in {wanted}; configured are: {}",
        first.label,
        first.listener.address(),
        configured.join(", ")
    )
}

/// For each wanted address the place of the socket that has it. Port 0 has what is left of the sockets with its address.
fn matches(wanted: &[(Whose, SocketAddr)], given: &[Option<Given>]) -> Vec<Option<usize>> {
    let mut found = vec![None; wanted.len()];
    for exactly in [true, false] {
        for (place, &(whose, address)) in wanted.iter().enumerate() {
            if found[place].is_some() || (!exactly && address.port() != 0) {
                continue;
            }
            found[place] = given.iter().enumerate().position(|(index, given)| {
                given.as_ref().is_some_and(|given| {
                    let at = given.listener.address();
                    let is_there = at == address || (!exactly && at.ip() == address.ip());
                    let is_for_it = given.whose.is_none_or(|it| it == whose);
                    is_there && is_for_it && !found.contains(&Some(index))
                })
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(whose: Option<Whose>) -> Option<Given> {
        let listener = Listener::bind(([127, 0, 0, 1], 0).into()).unwrap();
        let label = String::new();
        Some(Given {
            listener,
            whose,
            label,
        })
    }

    fn at(given: &Option<Given>) -> SocketAddr {
        given.as_ref().unwrap().listener.address()
    }

    #[test]
    fn sockets_are_found_by_their_addresses_in_any_order() {
        let sockets = [given(None), given(None)];
        let [first, second] = [at(&sockets[0]), at(&sockets[1])];
        let other: SocketAddr = ([127, 0, 0, 2], first.port()).into();
        let wanted = [
            (Whose::Http, second),
            (Whose::Http, other),
            (Whose::Admin, first),
        ];
        assert_eq!(matches(&wanted, &sockets), [Some(1), None, Some(0)]);
    }

    #[test]
    fn any_port_is_what_is_left_when_the_exact_ones_are_found() {
        let sockets = [given(None), given(None)];
        let any = ([127, 0, 0, 1], 0).into();
        let wanted = [(Whose::Http, any), (Whose::Http, at(&sockets[0]))];
        assert_eq!(matches(&wanted, &sockets), [Some(1), Some(0)]);
    }

    #[test]
    fn a_socket_that_is_named_is_for_nothing_else() {
        let sockets = [given(Some(Whose::Admin))];
        let wanted = [(Whose::Http, at(&sockets[0]))];
        assert_eq!(matches(&wanted, &sockets), [None]);
    }
}
