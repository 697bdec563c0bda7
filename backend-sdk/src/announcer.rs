//! Services that come and go while a backend serves.

use std::fmt;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use scale0_wire::{Hello, limits};

use crate::Error;
use crate::exchange::Outbox;
use crate::session::Event;

/// The most bytes that all names together may have: HELLO, which says them, has room for so many.
const NAME_BYTES: usize = 128 * 1024;

/// Changes which services a backend offers while it serves; see [`Backend::announcer`](crate::Backend::announcer).
///
/// A clone changes the same backend. What is said before the backend serves holds from its beginning; what is said after it has
/// drained changes nothing.
///
/// ```no_run
/// # async fn run(app: axum::Router) -> Result<(), scale0_backend::Error> {
/// use scale0_backend::Backend;
///
/// let backend = Backend::new("www.example.com").broker("tcp://127.0.0.1:5702");
/// let announcer = backend.announcer();
/// tokio::spawn(async move {
///     // Once what it takes is there:
///     announcer.announce("shop.example.com")
/// });
/// backend.serve(app).await
/// # }
/// ```
#[derive(Clone)]
pub struct Announcer(Arc<Announced>);

struct Announced {
    /// In lower case, each once.
    services: Mutex<Vec<String>>,
    outbox: OnceLock<Arc<Outbox>>,
}

impl Announcer {
    /// Offers these at first, whatever their names; [`check`](Self::check) judges them.
    pub(crate) fn new(services: impl IntoIterator<Item = String>) -> Self {
        let announcer = Self(Arc::new(Announced {
            services: Mutex::default(),
            outbox: OnceLock::new(),
        }));
        announcer.replace(services);
        announcer
    }

    /// Offers this service too, from now on: brokers hear of it at once, on the connections that they have. One that is offered
    /// already stays so, and nothing is said.
    ///
    /// A broker of the former version of the protocol cannot be told so: its session ends as for a restart, and begins anew with all
    /// services. Requests under way there have 5 s to end.
    ///
    /// # Errors
    /// [`Error::Name`] if no service can be called so, [`Error::TooManyServices`] if there are too many. Nothing has changed then.
    pub fn announce(&self, service: impl Into<String>) -> Result<(), Error> {
        let service = service.into().to_lowercase();
        let mut services = self.0.services.lock();
        if services.contains(&service) {
            return Ok(());
        }
        services.push(service);
        if let Err(error) = check(&services) {
            services.pop();
            return Err(error);
        }
        self.tell(&services);
        Ok(())
    }

    /// Offers this service no more. Requests for it that are under way, or on their way, are served; others go to other backends, or
    /// wait for one. One that is not offered stays so. With the last service a backend keeps its connections, and waits.
    pub fn withdraw(&self, service: &str) {
        let service = service.to_lowercase();
        let mut services = self.0.services.lock();
        let before = services.len();
        services.retain(|other| *other != service);
        if services.len() != before {
            self.tell(&services);
        }
    }

    /// What is offered now, in lower case.
    #[must_use]
    pub fn services(&self) -> Vec<String> {
        self.0.services.lock().clone()
    }

    /// Offers these instead.
    pub(crate) fn replace(&self, new: impl IntoIterator<Item = String>) {
        let mut services = self.0.services.lock();
        services.clear();
        for service in new.into_iter().map(|name| name.to_lowercase()) {
            if !services.contains(&service) {
                services.push(service);
            }
        }
    }

    /// What is offered, if it can be.
    pub(crate) fn checked(&self) -> Result<Vec<String>, Error> {
        let services = self.services();
        check(&services)?;
        Ok(services)
    }

    /// From here on the session hears of it, and of what was said meanwhile.
    pub(crate) fn attach(&self, outbox: &Arc<Outbox>) {
        let services = self.0.services.lock();
        let _ = self.0.outbox.set(Arc::clone(outbox));
        self.tell(&services);
    }

    /// Under the lock, so that the session hears of all changes in their order.
    fn tell(&self, services: &[String]) {
        if let Some(outbox) = self.0.outbox.get() {
            outbox.push(Event::Services(services.to_vec()));
        }
    }
}

impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let services = self.services();
        (f.debug_struct("Announcer").field("services", &services)).finish()
    }
}

fn check(services: &[String]) -> Result<(), Error> {
    if let Some(name) = services.iter().find(|name| !Hello::is_name(name)) {
        return Err(Error::Name {
            what: "service",
            name: name.clone(),
        });
    }
    let bytes: usize = services.iter().map(|name| 2 + name.len()).sum();
    if limits::SERVICES < services.len() || NAME_BYTES < bytes {
        return Err(Error::TooManyServices {
            services: services.len(),
            bytes,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_offered_once_whatever_its_case_and_only_under_a_name() {
        let announcer = Announcer::new(["Shop".to_owned(), "shop".to_owned()]);
        announcer.announce("SHOP").unwrap();
        announcer.announce("img").unwrap();
        assert_eq!(announcer.services(), ["shop", "img"]);
        for name in ["", "a b", "\u{e9}"] {
            assert!(matches!(
                announcer.announce(name),
                Err(Error::Name {
                    what: "service",
                    ..
                })
            ));
        }
        announcer.withdraw("Shop");
        announcer.withdraw("never offered");
        assert_eq!(announcer.services(), ["img"]);
    }

    #[test]
    fn more_services_than_a_session_may_have_are_refused_and_the_others_stay() {
        let names = |length: usize| {
            (0..2 * limits::SERVICES).map(move |number| format!("{number:0length$}"))
        };
        for (length, most) in [(4, limits::SERVICES), (253, NAME_BYTES / 255)] {
            let announcer = Announcer::new([]);
            let offered = names(length).take_while(|name| announcer.announce(name).is_ok());
            assert_eq!(offered.count(), most);
            assert_eq!(announcer.checked().unwrap().len(), most);
            announcer.withdraw(&names(length).next().unwrap());
            announcer.announce("one.more").unwrap();
        }
    }
}
