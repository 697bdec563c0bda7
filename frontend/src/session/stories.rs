//! The rules, each told as what happens.

use std::time::Duration;

use bytes::Bytes;
use scale0_wire::{
    Bye, Cancel, Fields, Flags, FlightKey, Heartbeat, Kind, Message, Priority, Reason,
    RoutingHeader, Window, limits,
};

use super::site::{STREAMS, Site, broken, complete, get, post, put};
use super::{Delivery, OpenRequest, StreamId};

const SECOND: Duration = Duration::from_secs(1);

fn chunks(messages: &[Message]) -> Vec<(u64, usize)> {
    let chunks = messages
        .iter()
        .filter(|message| message.header.kind == Kind::Chunk);
    chunks
        .map(|message| (message.header.correlation, message.content.len()))
        .collect()
}

mod sessions {
    use super::*;

    #[test]
    fn hello_opens_a_session_with_an_epoch_of_its_own_each_time() {
        let mut site = Site::dialling(1);
        site.up(0);
        let first = site.sent_to(0);
        assert_eq!((first.len(), first[0].header.kind), (1, Kind::Hello));
        site.welcome(0);
        assert!(site.lane.is_welcome());
        site.down(0);
        assert!(!site.lane.is_welcome());
        site.up(0);
        assert_ne!(site.sent_to(0)[0].header.epoch, first[0].header.epoch);
    }

    #[test]
    fn an_unanswered_hello_is_repeated_unchanged_and_then_the_broker_is_dialled_anew() {
        let mut site = Site::dialling(1);
        site.up(0);
        site.pass(SECOND * 5 / 2, &[]);
        let hellos = site.sent_to(0);
        assert_eq!(hellos.len(), 3);
        assert!(hellos.iter().all(|hello| *hello == hellos[0]));
        site.pass(SECOND, &[]);
        assert_eq!(site.kinds_to(0), [Kind::Bye]);
        assert_eq!(site.redialled, [site.links[0]]);
    }

    #[test]
    fn a_broker_that_says_nothing_for_three_intervals_is_dead_though_the_lane_is_idle() {
        let mut site = Site::new(1);
        site.pass(SECOND * 10, &[0]);
        assert!(site.lane.is_welcome());
        site.pass(SECOND * 29 / 10, &[]);
        assert!(site.lane.is_welcome());
        site.pass(SECOND, &[]);
        assert!(!site.lane.is_welcome());
        assert_eq!(site.lane.counters.silent, 1);
    }

    #[test]
    fn silence_is_noticed_at_longer_intervals_too() {
        let mut site = Site::dialling(1);
        site.up(0);
        site.welcome_with(0, limits::CONNECTION_WINDOW, SECOND * 10);
        site.pass(SECOND * 29, &[]);
        assert!(site.lane.is_welcome());
        site.pass(SECOND * 2, &[]);
        assert!(!site.lane.is_welcome());
    }

    #[test]
    fn after_a_pause_of_our_own_the_others_get_one_more_interval() {
        let mut site = Site::new(2);
        site.now += SECOND * 60;
        site.step(super::super::Lane::tick);
        assert!(site.lane.is_welcome());
        site.pass(SECOND * 9 / 10, &[]);
        site.say(0, Kind::Drain, None, Bytes::new());
        site.pass(SECOND / 5, &[]);
        assert_eq!(site.redialled, [site.links[1]]);
    }

    #[test]
    fn heartbeats_go_out_at_every_interval_however_busy_the_connection_is() {
        let mut site = Site::new(1);
        for _ in 0..50 {
            let id = site.open(get());
            site.answer(0, id);
            site.pass(SECOND / 10, &[0]);
        }
        let beats = site
            .kinds_to(0)
            .into_iter()
            .filter(|kind| *kind == Kind::Heartbeat)
            .count();
        assert!((4..=5).contains(&beats), "{beats}");
    }

    #[test]
    fn messages_of_another_session_are_dropped_and_counted() {
        let mut site = Site::new(1);
        let id = site.open(get());
        let old = site.sent_to(0)[0].header.epoch;
        site.down(0);
        site.up(0);
        site.welcome(0);
        let header = RoutingHeader {
            correlation: id.0,
            epoch: old,
            ..RoutingHeader::new(Kind::Response)
        };
        site.hear(0, Message::new(header));
        assert_eq!(site.lane.counters.dropped_epoch, 1);
        assert!(site.delivered().is_empty());
        site.answer(0, id);
        assert_eq!(site.delivered().len(), 1);
    }

    #[test]
    fn unknown_session_is_answered_by_hello_but_not_as_fast_as_it_can_be_said() {
        let mut site = Site::new(1);
        site.bye(0, Bye::UnknownSession);
        assert_eq!(site.kinds_to(0), [Kind::Hello]);
        for _ in 0..100 {
            site.bye(0, Bye::UnknownSession);
        }
        assert!(site.kinds_to(0).is_empty());
        site.pass(SECOND, &[]);
        assert_eq!(site.kinds_to(0), [Kind::Hello]);
        site.welcome(0);
        assert!(site.lane.is_welcome());
    }

    #[test]
    fn a_broker_that_expels_us_is_dialled_anew_and_one_that_leaves_is_not() {
        let mut site = Site::new(4);
        for (broker, why) in [
            Bye::Leaving,
            Bye::Version,
            Bye::Replaced,
            Bye::ProtocolError,
        ]
        .into_iter()
        .enumerate()
        {
            site.bye(broker, why);
        }
        assert_eq!(site.redialled, site.links[2..]);
        assert!(!site.lane.is_welcome());
    }

    #[test]
    fn a_draining_node_says_so_to_brokers_old_and_new() {
        let mut site = Site::new(2);
        site.down(1);
        site.step(|lane, now, actions| lane.drain(now, actions));
        site.step(|lane, now, actions| lane.drain(now, actions));
        assert_eq!(site.kinds_to(0), [Kind::Drain]);
        site.up(1);
        assert!(site.sent_to(1)[0].header.flags.contains(Flags::DRAINING));
    }

    #[test]
    fn leaving_ends_every_stream_and_session_and_nothing_begins_afterwards() {
        let mut site = Site::new(1);
        let id = site.open(get());
        site.sent_to(0);
        site.step(|lane, now, actions| lane.leave(now, actions));
        assert_eq!(site.kinds_to(0), [Kind::Cancel, Kind::Bye]);
        assert!(matches!(site.delivered().as_slice(), [(of, Delivery::Failed(_))] if *of == id));
        assert!(
            site.step(|lane, now, actions| lane.open(now, get(), actions))
                .is_err()
        );
        site.up(0);
        assert!(site.sent_to(0).is_empty());
    }
}

mod placement {
    use super::*;

    #[test]
    fn a_flight_goes_to_its_home_and_moves_only_when_that_drains() {
        let mut site = Site::new(3);
        for key in 1..50 {
            let open = OpenRequest {
                flight: FlightKey(key << 60 | key),
                ..get()
            };
            let (first, second) = (site.open(open.clone()), site.open(open));
            let asked: Vec<usize> = (0..3)
                .flat_map(|broker| vec![broker; site.kinds_to(broker).len()])
                .collect();
            assert_eq!(asked[0], asked[1]);
            site.answer(asked[0], first);
            site.answer(asked[0], second);
        }
        let open = || OpenRequest {
            flight: FlightKey(5),
            ..get()
        };
        site.open(open());
        let home = site.asked().unwrap();
        site.say(home, Kind::Drain, None, Bytes::new());
        site.open(open());
        assert_ne!(site.asked().unwrap(), home);
    }

    #[test]
    fn other_requests_go_where_fewest_are_outstanding() {
        let mut site = Site::new(2);
        let ids: Vec<StreamId> = (0..4).map(|_| site.open(get())).collect();
        assert_eq!((site.kinds_to(0).len(), site.kinds_to(1).len()), (2, 2));
        site.answer(1, ids[1]);
        site.open(get());
        assert_eq!(site.asked(), Some(1));
        site.check();
    }

    #[test]
    fn every_broker_that_a_request_comes_to_hears_what_its_route_says_of_it() {
        let mut site = Site::new(2);
        let open = OpenRequest {
            priority: Priority::Background,
            affinity: 7,
            hedge: true,
            ..get()
        };
        site.open(open);
        let first = site.sent_to(0);
        site.down(0);
        let second = site.sent_to(1);
        for sent in [first, second] {
            let header = sent[0].header;
            assert_eq!(header.kind, Kind::Request);
            assert_eq!(
                (header.priority, header.affinity),
                (Priority::Background, 7)
            );
            assert!(header.flags.contains(Flags::HEDGE));
        }
        site.open(get());
        let header = site.sent_to(1)[0].header;
        assert_eq!(
            (header.priority, header.affinity),
            (Priority::Interactive, 0)
        );
        assert!(!header.flags.contains(Flags::HEDGE));
    }

    #[test]
    fn requests_wait_for_a_first_broker_and_are_sent_in_order() {
        let mut site = Site::dialling(1);
        let ids = [site.open(get()), site.open(get()), site.open(get())];
        site.pass(SECOND, &[]);
        site.up(0);
        site.sent_to(0);
        site.welcome(0);
        let sent = site.sent_to(0);
        assert_eq!(
            sent.iter()
                .map(|message| message.header.correlation)
                .collect::<Vec<_>>(),
            ids.map(|id| id.0)
        );
        let header = sent[0].header;
        assert!(
            (28_900..29_000).contains(&header.deadline_ms)
                && (8_900..9_000).contains(&header.hold_ms),
            "{header:?}"
        );
    }

    #[test]
    fn a_request_that_no_broker_takes_within_hold_was_not_started() {
        let mut site = Site::dialling(1);
        site.open(get());
        site.pass(SECOND * 99 / 10, &[]);
        assert!(site.delivered().is_empty());
        site.pass(SECOND, &[]);
        let failure = site.failure();
        assert_eq!((failure.reason, failure.started), (Reason::NoBroker, false));
        assert_eq!(site.lane.open_streams(), 0);
    }

    #[test]
    fn a_streamed_request_that_ended_before_there_was_a_broker_is_ended_there() {
        let mut site = Site::dialling(1);
        let id = site.open(put());
        site.end_upload(id, &complete());
        site.up(0);
        site.sent_to(0);
        site.welcome(0);
        assert_eq!(site.kinds_to(0), [Kind::Request, Kind::End]);
    }

    #[test]
    fn so_many_streams_and_no_more() {
        let mut site = Site::new(1);
        for _ in 0..STREAMS {
            site.open(get());
        }
        let refused = site
            .step(|lane, now, actions| lane.open(now, get(), actions))
            .unwrap_err();
        assert_eq!(
            (refused.reason, refused.started),
            (Reason::TooManyStreams, false)
        );
    }

    #[test]
    fn a_refused_request_goes_to_each_other_broker_once_whatever_its_method() {
        let mut site = Site::new(3);
        let id = site.open(post());
        let mut asked = Vec::new();
        while let Some(broker) = site.asked() {
            asked.push(broker);
            site.reject(broker, id, Reason::NoBackend);
            site.check();
        }
        asked.sort_unstable();
        assert_eq!(asked, [0, 1, 2]);
        let failure = site.failure();
        assert_eq!(
            (failure.reason, failure.started),
            (Reason::NoBackend, false)
        );
    }

    #[test]
    fn what_a_request_was_held_at_one_broker_it_is_not_held_at_the_next() {
        let mut site = Site::new(2);
        let id = site.open(get());
        let first = site.asked().unwrap();
        site.pass(SECOND * 4, &[0, 1]);
        site.sent_to(1 - first);
        site.reject(first, id, Reason::NoBackend);
        let hold = site.sent_to(1 - first)[0].header.hold_ms;
        assert!((5_900..6_000).contains(&hold), "{hold}");
    }

    #[test]
    fn only_the_last_broker_that_could_serve_holds_a_request() {
        let mut site = Site::new(3);
        let id = site.open(post());
        let mut holds = Vec::new();
        while let Some((broker, request)) = site.request() {
            holds.push(request.header.hold_ms);
            site.reject(broker, id, Reason::NoBackend);
        }
        assert_eq!(holds, [0, 0, 10_000]);
        assert_eq!(site.failure().reason, Reason::NoBackend);
    }

    #[test]
    fn a_silent_broker_is_sent_nothing_new_while_another_speaks_and_is_back_at_its_first_word() {
        let mut site = Site::new(2);
        let asked = |site: &mut Site| {
            let asked = (1..7).map(|key| {
                let id = site.open(OpenRequest {
                    flight: FlightKey(key << 60 | key),
                    ..post()
                });
                let (broker, request) = site.request().unwrap();
                site.answer(broker, id);
                (broker, request.header.hold_ms)
            });
            asked.collect::<Vec<_>>()
        };
        site.pass(SECOND * 14 / 10, &[1]);
        assert!(asked(&mut site).contains(&(0, 0)), "it may be late");
        site.pass(SECOND * 16 / 10, &[1]);
        assert_eq!(asked(&mut site), [(1, 10_000); 6]);
        assert_eq!(site.lane.counters.passed_by_silent, 6);
        site.bye(0, Bye::UnknownSession);
        site.welcome(0);
        assert!(asked(&mut site).contains(&(0, 0)));
    }

    #[test]
    fn brokers_that_are_silent_alike_are_asked_all_the_same() {
        let mut site = Site::new(2);
        site.pass(SECOND * 2, &[]);
        site.open(post());
        assert!(site.asked().is_some());
    }

    #[test]
    fn a_rush_of_waiters_is_told_of_when_it_begins_and_then_four_times_a_second() {
        let mut site = Site::new(1);
        let id = site.open(OpenRequest {
            flight: FlightKey(1),
            ..get()
        });
        site.sent_to(0);
        let join = |site: &mut Site, waiters: usize| {
            let due = site.now + SECOND * 30;
            site.step(|lane, now, actions| lane.extend(now, id, due, waiters, actions));
        };
        let told = |site: &mut Site| {
            let updates = site.sent_to(0).into_iter().map(|message| message.header);
            let updates = updates.filter(|header| header.kind == Kind::Update);
            let updates = updates.map(|header| (header.waiters, header.deadline_ms));
            updates.collect::<Vec<_>>()
        };
        for waiters in 2..=100 {
            join(&mut site, waiters);
            site.now += SECOND / 1000;
        }
        // Several wait: that makes a difference to a broker. How many do not.
        assert_eq!(told(&mut site), [(2, 30_000)]);
        site.pass(SECOND / 4, &[0]);
        let later = told(&mut site);
        assert!(
            matches!(later[..], [(100, left)] if (29_700..30_000).contains(&left)),
            "{later:?}"
        );
        site.pass(SECOND, &[0]);
        assert_eq!(told(&mut site), [], "there is no news");
        join(&mut site, 1);
        assert_eq!(told(&mut site), [(1, 30_000)]);
    }

    #[test]
    fn a_deadline_that_is_near_is_moved_at_once() {
        let mut site = Site::new(1);
        let id = site.open(OpenRequest {
            timeout: SECOND / 3,
            ..get()
        });
        site.sent_to(0);
        for waiters in [2, 3] {
            let due = site.now + SECOND / 3;
            site.step(|lane, now, actions| lane.extend(now, id, due, waiters, actions));
            assert_eq!(site.kinds_to(0), [Kind::Update]);
            site.now += SECOND / 10;
        }
    }

    #[test]
    fn a_full_queue_is_final() {
        let mut site = Site::new(2);
        let id = site.open(get());
        let broker = site.asked().unwrap();
        site.reject(broker, id, Reason::QueueFull);
        assert_eq!(site.failure().reason, Reason::QueueFull);
        assert_eq!(site.asked(), None);
    }
}

mod repeats {
    use super::*;

    #[test]
    fn an_idempotent_request_is_repeated_when_its_broker_is_lost_and_another_fails() {
        let mut site = Site::new(2);
        let (safe, unsafe_) = (
            site.open(OpenRequest {
                flight: FlightKey(1),
                ..get()
            }),
            site.open(OpenRequest {
                flight: FlightKey(1),
                ..post()
            }),
        );
        let broker = site.asked().unwrap();
        site.down(broker);
        assert_eq!(site.asked(), Some(1 - broker));
        let delivered = site.delivered();
        assert!(
            matches!(&delivered[..], [(id, Delivery::Failed(failure))] if *id == unsafe_ && failure.started && failure.reason == Reason::BrokerLost)
        );
        site.answer(1 - broker, safe);
        assert_eq!(site.lane.open_streams(), 0);
        site.check();
    }

    #[test]
    fn a_request_survives_two_lost_brokers_and_not_a_third() {
        let mut site = Site::new(4);
        site.open(get());
        for _ in 0..3 {
            let broker = site.asked().unwrap();
            site.down(broker);
        }
        assert_eq!(site.asked(), None);
        assert_eq!(site.failure().reason, Reason::BrokerLost);
        assert_eq!(site.lane.counters.repeated, 2);
    }

    #[test]
    fn a_request_whose_only_broker_is_lost_waits_for_it_as_long_as_for_a_first() {
        let mut site = Site::new(1);
        let id = site.open(get());
        site.pass(SECOND * 15, &[0]);
        site.down(0);
        site.pass(SECOND * 5, &[]);
        site.sent_to(0);
        site.up(0);
        site.welcome(0);
        assert_eq!(site.asked(), Some(0));
        site.answer(0, id);
        assert_eq!(site.delivered().len(), 1);
    }

    #[test]
    fn a_request_whose_head_came_is_not_repeated() {
        let mut site = Site::new(2);
        let id = site.open(get());
        let broker = site.asked().unwrap();
        site.head(broker, id);
        site.delivered();
        site.down(broker);
        assert_eq!(site.failure().reason, Reason::BrokerLost);
    }

    #[test]
    fn a_streamed_upload_is_repeatable_until_its_first_chunk_was_sent() {
        let mut site = Site::new(3);
        let id = site.open(put());
        let first = site.asked().unwrap();
        site.window(first, Some(id), 100);
        assert_eq!(site.delivered(), [(id, Delivery::Ready)]);
        site.down(first);
        let second = site.asked().unwrap();
        site.upload(id, b"abc");
        assert!(
            site.sent_to(second).is_empty(),
            "the lost backend's window holds no more"
        );
        site.window(second, Some(id), 2);
        assert_eq!(chunks(&site.sent_to(second)), [(id.0, 2)]);
        site.down(second);
        assert_eq!(site.failure().reason, Reason::BrokerLost);
    }

    #[test]
    fn an_ended_upload_without_chunks_is_repeated_with_its_end() {
        let mut site = Site::new(2);
        let id = site.open(put());
        let first = site.asked().unwrap();
        site.end_upload(id, &complete());
        site.down(first);
        assert_eq!(site.kinds_to(1 - first), [Kind::Request, Kind::End]);
    }

    #[test]
    fn an_upload_that_lost_content_is_not_sent_elsewhere_though_rejected() {
        let mut site = Site::new(2);
        let id = site.open(put());
        let broker = site.asked().unwrap();
        site.window(broker, Some(id), 10);
        site.upload(id, b"abc");
        site.delivered();
        site.reject(broker, id, Reason::Draining);
        assert_eq!(site.failure().reason, Reason::Draining);
        assert_eq!(site.asked(), None);
    }

    #[test]
    fn a_request_that_a_leaving_broker_gives_up_goes_to_another() {
        for reason in [Reason::Draining, Reason::BrokerLost, Reason::SessionEnded] {
            let mut site = Site::new(2);
            let id = site.open(get());
            let broker = site.asked().unwrap();
            site.end(broker, id, &broken(reason));
            assert_eq!(site.asked(), Some(1 - broker));
            site.end(1 - broker, id, &broken(reason));
            assert_eq!(site.failure().reason, reason);
        }
        let mut site = Site::new(2);
        let id = site.open(get());
        let broker = site.asked().unwrap();
        site.end(broker, id, &broken(Reason::AppFailed));
        assert_eq!(
            site.failure().reason,
            Reason::AppFailed,
            "the broker has a budget for that"
        );
    }

    #[test]
    fn a_request_that_a_broker_lost_with_its_backends_goes_to_another_broker() {
        for reason in [Reason::BackendLost, Reason::NoBackend] {
            let mut site = Site::new(2);
            let (safe, unsafe_) = (site.open(get()), site.open(post()));
            let broker = site.lane.streams[safe.seat()].link;
            let broker = site.links.iter().position(|link| Some(*link) == broker);
            let broker = broker.unwrap();
            site.asked();
            site.fail_after(broker, safe, reason, 1);
            let (other, again) = site.request().unwrap();
            assert_eq!((other, again.header.attempt), (1 - broker, 1));
            site.fail_after(1 - broker, unsafe_, reason, 1);
            assert_eq!(site.failure().reason, reason, "it may have run");
            // No third broker is left.
            site.fail_after(other, safe, reason, 2);
            assert_eq!(site.failure().reason, reason);
            site.check();
        }
    }

    #[test]
    fn losses_of_backends_and_of_brokers_are_counted_together() {
        for losses in 0..=3 {
            let mut site = Site::new(4);
            let id = site.open(get());
            let broker = site.asked().unwrap();
            site.fail_after(broker, id, Reason::BackendLost, losses);
            // A broker that does not say how many has lost one.
            let losses = losses.max(1);
            let again = site.request();
            assert_eq!(again.is_some(), losses <= 2, "{losses}");
            let Some((broker, again)) = again else {
                assert_eq!(site.failure().reason, Reason::BackendLost);
                continue;
            };
            assert_eq!(again.header.attempt, losses);
            site.down(broker);
            assert_eq!(site.asked().is_some(), losses < 2);
        }
    }

    #[test]
    fn a_refusal_after_a_loss_does_not_say_that_nothing_was_started() {
        let mut site = Site::new(2);
        let id = site.open(get());
        let broker = site.asked().unwrap();
        site.down(broker);
        site.reject(1 - broker, id, Reason::QueueFull);
        assert!(site.failure().started);
    }
}

mod uploads {
    use super::*;

    #[test]
    fn content_goes_up_only_when_it_is_asked_for_and_within_the_streams_window() {
        let mut site = Site::new(1);
        let id = site.open(put());
        assert_eq!(site.kinds_to(0), [Kind::Request]);
        assert!(site.delivered().is_empty());
        site.window(0, Some(id), 4);
        assert_eq!(site.delivered(), [(id, Delivery::Ready)]);
        site.upload(id, b"abcdefgh");
        assert_eq!(chunks(&site.sent_to(0)), [(id.0, 4)]);
        assert!(site.delivered().is_empty());
        site.window(0, Some(id), 100);
        assert_eq!(chunks(&site.sent_to(0)), [(id.0, 4)]);
        assert_eq!(site.delivered(), [(id, Delivery::Ready)]);
        site.end_upload(id, &complete());
        assert_eq!(site.kinds_to(0).last(), Some(&Kind::End));
    }

    #[test]
    fn an_end_waits_for_the_piece_before_it_unless_the_content_broke_off() {
        let mut site = Site::new(1);
        let (whole, short) = (site.open(put()), site.open(put()));
        for id in [whole, short] {
            site.window(0, Some(id), 1);
            site.upload(id, b"abc");
        }
        site.sent_to(0);
        site.end_upload(whole, &complete());
        assert!(!site.kinds_to(0).contains(&Kind::End));
        site.window(0, Some(whole), 3);
        assert_eq!(site.kinds_to(0), [Kind::Chunk, Kind::End]);
        site.end_upload(short, &broken(Reason::ClientGone));
        assert_eq!(site.kinds_to(0), [Kind::End]);
        site.window(0, Some(short), 3);
        assert!(site.kinds_to(0).is_empty());
        site.check();
    }

    #[test]
    fn streams_take_turns_with_the_connections_window() {
        let mut site = Site::dialling(1);
        site.up(0);
        site.welcome_with(0, 0, limits::HEARTBEAT);
        let ids = [site.open(put()), site.open(put())];
        for id in ids {
            site.window(0, Some(id), 1 << 30);
            site.upload(id, &vec![0; 4 * limits::CONTENT]);
            // Said again and again it makes the line no longer.
            site.window(0, Some(id), 1 << 31);
        }
        site.check();
        assert!(chunks(&site.sent_to(0)).is_empty());
        let most = limits::CONTENT as u64;
        site.window(0, None, 3 * most);
        let [a, b] = ids.map(|id| id.0);
        assert_eq!(
            chunks(&site.sent_to(0)),
            [
                (a, limits::CONTENT),
                (b, limits::CONTENT),
                (a, limits::CONTENT)
            ]
        );
        site.step(|lane, now, actions| lane.cancel(now, ids[1], Reason::Cancelled, actions));
        site.check();
        site.window(0, None, 100 * most);
        assert_eq!(chunks(&site.sent_to(0)).len(), 2);
    }

    #[test]
    fn the_deadline_stands_still_while_content_moves_and_the_broker_hears_of_it() {
        let mut site = Site::new(1);
        let id = site.open(OpenRequest {
            timeout: SECOND * 2,
            ..put()
        });
        site.window(0, Some(id), 1 << 20);
        for _ in 0..10 {
            site.pass(SECOND, &[0]);
            site.upload(id, b"abc");
        }
        site.end_upload(id, &complete());
        let updates: Vec<Message> = site
            .sent_to(0)
            .into_iter()
            .filter(|message| message.header.kind == Kind::Update)
            .collect();
        assert!(
            10 <= updates.len()
                && updates
                    .iter()
                    .all(|update| update.header.deadline_ms == 2000),
            "{updates:?}"
        );
        site.delivered();
        site.pass(SECOND * 3, &[0]);
        assert_eq!(site.failure().reason, Reason::Deadline);
    }

    #[test]
    fn a_tunnel_opens_the_way_up_though_the_end_of_the_request_still_waits() {
        let mut site = Site::dialling(1);
        site.up(0);
        site.welcome_with(0, 0, limits::HEARTBEAT);
        let id = site.open(OpenRequest {
            upgrade: true,
            ..put()
        });
        site.window(0, Some(id), 100);
        site.upload(id, b"for the connection's window");
        site.end_upload(id, &complete());
        site.delivered();
        site.say(0, Kind::Upgrade, Some(id), Bytes::from_static(b"101"));
        assert_eq!(site.delivered().pop(), Some((id, Delivery::Ready)));

        site.sent_to(0);
        site.upload(id, b"tunnelled");
        site.window(0, None, 1_000);
        assert_eq!(chunks(&site.sent_to(0)), [(id.0, 9)]);
        site.check();
    }

    #[test]
    fn a_tunnel_opens_the_way_up_though_the_request_was_whole() {
        let mut site = Site::new(1);
        let id = site.open(OpenRequest {
            upgrade: true,
            ..get()
        });
        site.window(0, Some(id), 100);
        site.say_more(
            0,
            Kind::Upgrade,
            Some(id),
            Bytes::from_static(b"101"),
            5,
            Flags(0),
        );
        let delivered = site.delivered();
        assert!(
            matches!(&delivered[0].1, Delivery::Head { upgrade: true, whole: false, content, .. } if content.len() == 5)
        );
        assert_eq!(delivered[1].1, Delivery::Ready);
        site.upload(id, b"abc");
        site.chunk(0, id, 3);
        assert!(site.kinds_to(0).contains(&Kind::Chunk));
        site.end(0, id, &complete());
        assert_eq!(
            site.delivered().last().unwrap().1,
            Delivery::End(Fields::default())
        );
        assert_eq!(site.lane.open_streams(), 0);
    }
}

mod responses {
    use super::*;

    #[test]
    fn a_response_comes_in_order_and_its_stream_is_over_with_it() {
        let mut site = Site::new(1);
        let id = site.open(get());
        site.say(0, Kind::Interim, Some(id), Bytes::from_static(b"103"));
        site.head(0, id);
        site.chunk(0, id, 2);
        site.end(0, id, &complete());
        site.chunk(0, id, 2);
        let delivered: Vec<Delivery> = site
            .delivered()
            .into_iter()
            .map(|(_, delivery)| delivery)
            .collect();
        assert!(matches!(
            &delivered[..],
            [
                Delivery::Interim(_),
                Delivery::Head { whole: false, .. },
                Delivery::Content(_),
                Delivery::End(_)
            ]
        ));
        assert_eq!(site.lane.counters.dropped_stream, 1);
    }

    #[test]
    fn a_message_out_of_place_ends_its_stream_and_no_other() {
        type Say = fn(&mut Site, StreamId);
        let wrong: [Say; 8] = [
            |site, id| site.chunk(0, id, 1),
            |site, id| site.end(0, id, &complete()),
            |site, id| site.say(0, Kind::End, Some(id), Bytes::from_static(b"\xff")),
            |site, id| site.say(0, Kind::Reject, Some(id), Bytes::new()),
            |site, id| site.say(0, Kind::Upgrade, Some(id), Bytes::new()),
            |site, id| site.say(0, Kind::Unsupported, Some(id), Bytes::from_static(&[128])),
            |site, id| site.say(0, Kind::Window, Some(id), Bytes::new()),
            |site, id| {
                site.say_more(
                    0,
                    Kind::Response,
                    Some(id),
                    Bytes::new(),
                    limits::STREAM_WINDOW as usize + 1,
                    Flags(0),
                );
            },
        ];
        for say in wrong {
            let mut site = Site::new(1);
            let (id, other) = (site.open(get()), site.open(get()));
            site.sent_to(0);
            say(&mut site, id);
            assert_eq!(site.failure().reason, Reason::ProtocolError);
            let cancel = site
                .sent_to(0)
                .into_iter()
                .find(|message| message.header.kind == Kind::Cancel)
                .unwrap();
            assert_eq!(
                Cancel::decode(&cancel.metadata).unwrap(),
                Cancel(Reason::ProtocolError)
            );
            site.answer(0, other);
            assert_eq!(site.delivered().len(), 1);
            site.check();
        }
    }

    #[test]
    fn what_no_window_bounds_is_bounded_all_the_same() {
        let mut site = Site::new(1);
        let id = site.open(get());
        for _ in 0..1000 {
            site.say(0, Kind::Interim, Some(id), Bytes::from_static(b"102"));
        }
        site.head(0, id);
        for _ in 0..1000 {
            site.chunk(0, id, 0);
        }
        assert!(site.delivered().len() < 20);
    }

    #[test]
    fn content_for_a_forgotten_stream_still_opens_the_connections_window_again() {
        let mut site = Site::new(1);
        let id = site.open(get());
        site.head(0, id);
        site.step(|lane, now, actions| lane.cancel(now, id, Reason::Cancelled, actions));
        site.sent_to(0);
        for _ in 0..100 {
            site.chunk(0, id, limits::CONTENT);
        }
        let sent = site.sent_to(0);
        let last = Window::decode(&sent.last().unwrap().metadata).unwrap().0;
        assert!(
            100 * limits::CONTENT as u64 <= last
                && sent.iter().all(|message| message.header.correlation == 0)
        );
        assert!(site.lane.is_welcome());
    }

    #[test]
    fn a_broker_beyond_the_connections_window_is_expelled() {
        let mut site = Site::new(1);
        let id = site.open(get());
        site.sent_to(0);
        site.chunk(0, id, limits::CONNECTION_WINDOW as usize + 1);
        assert_eq!(site.kinds_to(0), [Kind::Bye]);
        assert_eq!(site.redialled, [site.links[0]]);
    }

    #[test]
    fn no_number_that_a_broker_invents_reaches_a_stream() {
        let mut site = Site::new(1);
        let id = site.open(get());
        for correlation in [0, 1 << 32, u64::MAX, id.0 + 1, id.0 | 1 << 63] {
            for kind in [Kind::Chunk, Kind::Response, Kind::End, Kind::Reject] {
                site.say(0, kind, Some(StreamId(correlation)), complete().encode());
            }
        }
        assert!(site.delivered().is_empty());
        assert_eq!(site.lane.counters.dropped_stream, 20);
    }

    #[test]
    fn a_silent_response_ends_after_its_idle_time_but_not_while_its_reader_is_slow() {
        let mut site = Site::new(1);
        let id = site.open(get());
        site.head(0, id);
        site.chunk(0, id, 10);
        site.delivered();
        site.pass(SECOND * 70, &[0]);
        assert!(site.delivered().is_empty());
        site.step(|lane, now, actions| lane.consume(now, id, 10, actions));
        site.pass(SECOND * 59, &[0]);
        assert!(site.delivered().is_empty());
        site.pass(SECOND * 2, &[0]);
        assert_eq!(site.failure().reason, Reason::IdleTimeout);
    }

    #[test]
    fn each_heartbeat_behind_a_drain_is_answered_at_once() {
        let mut site = Site::new(1);
        let beat = |site: &mut Site, sequence| {
            let heartbeat = Heartbeat {
                sequence,
                ..Heartbeat::default()
            };
            site.say(0, Kind::Heartbeat, None, heartbeat.encode());
            site.sent_to(0)
        };
        assert!(beat(&mut site, 1).is_empty());
        site.say(0, Kind::Drain, None, Bytes::new());
        assert!(site.sent_to(0).is_empty(), "it would echo what came before");

        for sequence in [2, 3] {
            let answers = beat(&mut site, sequence);
            assert_eq!(answers.len(), 1);
            let answer = Heartbeat::decode(&answers[0].metadata).unwrap();
            assert_eq!(answer.echo, sequence);
        }
    }

    #[test]
    fn a_draining_broker_is_sent_nothing_but_what_belongs_to_its_open_streams() {
        let mut site = Site::new(2);
        let id = site.open(put());
        let leaver = site.asked().unwrap();
        site.window(leaver, Some(id), 3);
        site.say(leaver, Kind::Drain, None, Bytes::new());
        site.upload(id, b"abc");
        site.end_upload(id, &complete());
        assert_eq!(site.kinds_to(leaver), [Kind::Chunk, Kind::End]);
        for open in [get(), post(), put(), get()] {
            site.open(open);
            assert_eq!(site.asked(), Some(1 - leaver));
        }
        site.down(1 - leaver);
        site.open(post());
        assert_eq!(site.asked(), None, "neither what is new nor what was lost");
        site.check();
    }

    #[test]
    fn what_a_leaving_broker_gives_back_waits_for_the_next_as_for_a_first() {
        for open in [get(), post()] {
            let mut site = Site::new(1);
            let id = site.open(open);
            site.say(0, Kind::Drain, None, Bytes::new());
            site.reject(0, id, Reason::Draining);
            assert!(site.delivered().is_empty());
            site.bye(0, Bye::Leaving);
            site.pass(SECOND, &[]);
            site.up(0);
            site.welcome(0);
            assert_eq!(site.asked(), Some(0), "the same, started anew");
            site.answer(0, id);
            assert_eq!(site.delivered().len(), 1);
        }
        let mut site = Site::new(1);
        let id = site.open(post());
        site.say(0, Kind::Drain, None, Bytes::new());
        site.pass(SECOND * 11, &[0]);
        site.reject(0, id, Reason::Draining);
        let failure = site.failure();
        assert_eq!((failure.reason, failure.started), (Reason::Draining, false));
    }

    #[test]
    fn a_draining_broker_finishes_what_it_has() {
        let mut site = Site::new(1);
        let id = site.open(get());
        site.say(0, Kind::Drain, None, Bytes::new());
        assert!(!site.lane.is_welcome());
        site.answer(0, id);
        assert_eq!(site.delivered().len(), 1);
        site.bye(0, Bye::Leaving);
        assert_eq!(site.lane.brokers()[0].state, "down");
    }

    #[test]
    fn a_cancelled_stream_is_forgotten_and_its_broker_told_once() {
        let mut site = Site::new(1);
        let id = site.open(get());
        site.sent_to(0);
        for _ in 0..2 {
            site.step(|lane, now, actions| lane.cancel(now, id, Reason::Cancelled, actions));
        }
        assert_eq!(site.kinds_to(0), [Kind::Cancel]);
        site.answer(0, id);
        assert!(site.delivered().is_empty());
        assert_eq!(site.lane.open_streams(), 0);
    }
}

mod redirects {
    use scale0_wire::{OtherBroker, Redirect};

    use super::*;

    fn redirect(site: &mut Site, broker: usize, nodes: &[&str]) {
        let brokers = nodes.iter().map(|node| OtherBroker {
            endpoint: format!("ipc:///run/{node}"),
            key: None,
            node: (*node).to_owned(),
        });
        let brokers = brokers.collect();
        site.say(broker, Kind::Redirect, None, Redirect { brokers }.encode());
    }

    #[test]
    fn of_the_brokers_that_one_names_those_of_other_nodes_than_the_known_are_to_be_dialled() {
        let mut site = Site::new(2);
        redirect(&mut site, 0, &["broker-1", "broker-2", "broker-0"]);
        let named: Vec<&str> = site.named.iter().map(|other| &other.node[..]).collect();
        assert_eq!(named, ["broker-2"]);
        site.learn("broker-2");
        redirect(&mut site, 1, &["broker-2"]);
        assert_eq!(site.named.len(), 1, "it is being dialled");
    }

    #[test]
    fn a_named_broker_serves_when_the_one_that_named_it_is_gone() {
        let mut site = Site::new(1);
        redirect(&mut site, 0, &["broker-1"]);
        site.say(0, Kind::Drain, None, Bytes::new());
        let id = site.open(get());
        let other = site.learn("broker-1");
        site.up(other);
        site.welcome(other);
        assert_eq!(site.asked(), Some(other));
        site.answer(other, id);
        assert_eq!(site.delivered().len(), 1);
    }

    #[test]
    fn a_named_broker_that_is_another_way_to_a_known_one_is_hung_up_on() {
        let mut site = Site::dialling(1);
        let before = site.learn("broker-0");
        site.up(0);
        site.welcome(0);
        // By its name, before anything is said.
        site.up(before);
        assert!(site.sent_to(before).is_empty());
        // By what the broker says of two sessions of one lane.
        let after = site.learn("alias");
        site.up(after);
        site.bye(after, Bye::Replaced);
        assert_eq!(site.closed, [site.links[before], site.links[after]]);
        assert!(site.redialled.is_empty());
        assert_eq!(site.lane.brokers().len(), 1);
        site.pass(SECOND * 5, &[0]);
        assert!(site.lane.is_welcome());
        assert!(
            site.sent_to(after)
                .iter()
                .all(|it| it.header.kind == Kind::Hello)
        );
    }

    #[test]
    fn what_a_broker_of_the_older_version_names_is_not_understood() {
        let mut site = Site::dialling(1);
        site.version = 1;
        site.up(0);
        site.welcome(0);
        redirect(&mut site, 0, &["broker-1"]);
        assert!(site.named.is_empty());
        assert_eq!(site.lane.counters.unknown_kind, 1);
    }
}

mod refusals {
    use super::*;

    #[test]
    fn a_broker_that_allows_no_session_is_left_in_peace_for_half_a_minute() {
        let mut site = Site::new(1);
        site.bye(0, Bye::NotAllowed);
        assert!(!site.lane.is_welcome());
        site.pass(SECOND * 29, &[]);
        assert!(site.kinds_to(0).is_empty() && site.redialled.is_empty());
        site.pass(SECOND * 2, &[]);
        assert_eq!(site.kinds_to(0)[0], Kind::Hello);
    }

    #[test]
    fn a_quarantine_is_kept_to_but_for_no_longer_than_ten_minutes() {
        for (milliseconds, seconds) in [(4_000, 4), (u32::MAX, 600), (0, 1)] {
            let mut site = Site::new(1);
            site.bye(0, Bye::Quarantined(milliseconds));
            site.pass(SECOND * seconds - SECOND / 10, &[]);
            assert!(site.kinds_to(0).is_empty());
            site.pass(SECOND / 5, &[]);
            assert_eq!(site.kinds_to(0), [Kind::Hello]);
        }
    }
}

mod explanations {
    use scale0_wire::{Explain, Hop, What};

    use super::super::{Asked, Ended, Told};
    use super::*;

    fn hops(count: usize) -> Vec<Hop> {
        let hop = |at_us| Hop {
            what: What::ARRIVED,
            at_us,
            a: 0,
            b: 0,
            node: String::new(),
        };
        (0..u32::try_from(count).unwrap()).map(hop).collect()
    }

    fn explain(site: &mut Site, broker: usize, id: StreamId, hops: Vec<Hop>) {
        site.say(broker, Kind::Explain, Some(id), Explain { hops }.encode());
    }

    fn asking() -> OpenRequest {
        OpenRequest {
            explain: true,
            ..get()
        }
    }

    fn told(site: &mut Site) -> Vec<Told> {
        let delivered = site.delivered().into_iter();
        let told = delivered.filter_map(|(_, delivery)| match delivery {
            Delivery::Told(told) => Some(told),
            _other => None,
        });
        told.collect()
    }

    fn ended(site: &Site, broker: &str, how: Ended) -> Told {
        Told::Ended {
            at: site.now,
            broker: broker.to_owned(),
            how,
        }
    }

    /// Now.
    fn asked(site: &Site, broker: &str, why: Asked, among: usize) -> Told {
        Told::Asked {
            at: site.now,
            broker: broker.to_owned(),
            why,
            among,
        }
    }

    #[test]
    fn who_wants_to_know_is_told_who_was_asked_and_why_and_what_they_say() {
        let mut site = Site::new(2);
        let id = site.open(asking());
        let request = site.sent_to(0).remove(0);
        assert!(request.header.flags.contains(Flags::EXPLAIN));
        let first = asked(&site, "broker-0", Asked::Least, 2);
        assert_eq!(told(&mut site), [first]);
        explain(&mut site, 0, id, hops(2));
        let broker = String::from("broker-0");
        let hops = hops(2);
        assert_eq!(told(&mut site), [Told::Explained { broker, hops }]);

        site.down(0);
        let next = asked(&site, "broker-1", Asked::Only, 1);
        let lost = ended(&site, "broker-0", Ended::Lost);
        assert_eq!(told(&mut site), [lost, next]);
        site.answer(1, id);
        assert_eq!(site.delivered().len(), 1);
    }

    #[test]
    fn a_refusal_and_where_the_request_goes_next_are_told_before_the_answer() {
        let mut site = Site::new(2);
        let id = site.open(asking());
        told(&mut site);
        site.reject(0, id, Reason::NoBackend);
        let next = asked(&site, "broker-1", Asked::Only, 1);
        let refused = Ended::Refused(Reason::NoBackend);
        let refused = ended(&site, "broker-0", refused);
        assert_eq!(told(&mut site), [refused, next]);
        site.end(1, id, &broken(Reason::AppFailed));
        let delivered = site.delivered();
        let failed = Delivery::Told(ended(&site, "broker-1", Ended::Failed(Reason::AppFailed)));
        assert_eq!(delivered[0], (id, failed));
        assert!(matches!(delivered[1], (_, Delivery::Failed(_))));
    }

    #[test]
    fn of_a_flight_it_is_said_that_its_home_was_asked() {
        let mut site = Site::new(2);
        site.open(OpenRequest {
            flight: FlightKey(5),
            ..asking()
        });
        let home = site.asked().unwrap();
        let expected = asked(&site, &format!("broker-{home}"), Asked::Home, 2);
        assert_eq!(told(&mut site), [expected]);
    }

    #[test]
    fn who_has_not_asked_or_has_its_head_is_told_nothing() {
        let mut site = Site::new(1);
        let id = site.open(get());
        let request = site.sent_to(0).remove(0);
        assert!(!request.header.flags.contains(Flags::EXPLAIN));
        explain(&mut site, 0, id, hops(1));
        let late = site.open(asking());
        told(&mut site);
        site.head(0, late);
        explain(&mut site, 0, late, hops(1));
        assert_eq!(told(&mut site), []);
        assert_eq!(site.lane.counters.dropped_protocol, 2);
        assert_eq!(site.lane.open_streams(), 2, "no harm is done");
    }

    #[test]
    fn a_broker_that_goes_on_explaining_is_not_listened_to() {
        let mut site = Site::new(1);
        let id = site.open(asking());
        told(&mut site);
        for _ in 0..50 {
            explain(&mut site, 0, id, hops(1));
        }
        assert_eq!(told(&mut site).len(), 8);
    }
}
