//! Every task of a flight is dropped at every one of its await points; nothing may be orphaned.

use std::time::Duration;

use scale0_cache::CacheConfig;

use crate::site::{Habits, Outcome, Pending, Request, Resource, Site};
use crate::world::DropAt;

/// Two clients and a slow third, a body longer than the window, a fetch that has to wait for room.
fn story(private: bool) -> (Site, Vec<Pending>) {
    let config = CacheConfig {
        memory: 0,
        flight_buffer: 4096,
        ..CacheConfig::default()
    };
    let site = Site::new(config);
    let mut fields = vec![("etag", "\"v1\"")];
    fields.push((
        "cache-control",
        if private { "private" } else { "max-age=60" },
    ));
    site.has(
        "/",
        Resource {
            fields,
            length: 7_000,
            ..Resource::default()
        },
    );
    let slow = Habits {
        pause: Duration::from_millis(400),
        ..Habits::default()
    };
    let clients = vec![
        site.client(Request::get(1, "/"), Habits::default()),
        site.client(Request::get(2, "/"), Habits::default()),
        site.client(Request::get(3, "/"), slow),
        site.client(Request::head(4, "/"), Habits::default()),
    ];
    (site, clients)
}

fn check(private: bool, drops: &[DropAt]) -> Vec<usize> {
    let (site, clients) = story(private);
    let run = site.world.run(drops, |_| 0, || {});
    assert_eq!(run.orphans, Vec::<&str>::new(), "{drops:?}");
    site.assert_empty();
    for (task, client) in clients.iter().enumerate() {
        let expected = site.expected(&Request::get(task as u64 + 1, "/"));
        match &*client.borrow() {
            Some(Outcome::Whole { body, .. }) => assert_eq!(*body, expected, "{drops:?}"),
            Some(Outcome::Aborted(body)) => assert!(expected.starts_with(body), "{drops:?}"),
            Some(Outcome::Head | Outcome::Error(_)) => {}
            Some(Outcome::Left) => panic!("nobody leaves here"),
            None => assert!(
                drops.iter().any(|drop| drop.task == task),
                "no outcome for {task}: {drops:?}"
            ),
        }
    }
    // Only a fetch that was itself dropped is a reason to fail anybody.
    if drops.iter().all(|drop| drop.task < clients.len()) {
        assert_eq!(
            site.counter("vanished") + site.counter("failed"),
            0,
            "{drops:?}"
        );
    }
    run.polls
}

#[test]
fn a_task_dropped_at_any_await_point_leaves_no_orphan() {
    for private in [false, true] {
        let polls = check(private, &[]);
        for (task, &most) in polls.iter().enumerate() {
            for polls in 0..=most {
                check(private, &[DropAt { task, polls }]);
            }
        }
    }
}

#[test]
fn two_tasks_dropped_at_any_two_await_points_leave_no_orphan() {
    let polls = check(false, &[]);
    for (first, &first_most) in polls.iter().enumerate() {
        for (second, &second_most) in polls.iter().enumerate().skip(first + 1) {
            for first_polls in 0..=first_most {
                for second_polls in 0..=second_most {
                    check(
                        false,
                        &[
                            DropAt {
                                task: first,
                                polls: first_polls,
                            },
                            DropAt {
                                task: second,
                                polls: second_polls,
                            },
                        ],
                    );
                }
            }
        }
    }
}
