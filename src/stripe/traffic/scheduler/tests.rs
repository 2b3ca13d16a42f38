//! The scheduler's laws: what goes never exceeds what the account lets through, whoever wants, and nobody starves.

use proptest::prelude::*;

use super::*;
use crate::contract::Verb;
use crate::domain::limits::STRIPE_QUEUE_MS_MAX;

const SETTINGS: Settings =
    Settings { requests_per_s: 25, endpoint_requests_per_s: 25, requests_at_once_max: 10 };

fn at(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn endpoint(verb: Verb, template: &str) -> Lane {
    Lane::Endpoint(verb, template.to_owned())
}

fn ask(class: Class, caller: &str) -> Ask {
    Ask {
        class,
        caller: caller.into(),
        weight: 1,
        lane: endpoint(Verb::Post, class.as_str()),
        object: None,
        until: Duration::MAX,
    }
}

/// Asks for the same so often.
fn ask_often(scheduler: &mut Scheduler, times: u32, now: Duration, asked: &Ask) {
    for _ in 0..times {
        scheduler.ask(now, asked.clone()).unwrap();
    }
}

/// A scheduler whose buckets are empty, at this time.
fn used_up(settings: Settings, now: Duration) -> Scheduler {
    let mut scheduler = Scheduler::new(settings);
    for class in [Class::Reserved, Class::Write] {
        for _ in 0..100 {
            scheduler.ask(now, ask(class, "before")).unwrap();
        }
        for (_, turn) in scheduler.poll(now) {
            scheduler.done(now, turn.unwrap());
        }
        scheduler.poll(now).into_iter().for_each(|(_, turn)| scheduler.done(now, turn.unwrap()));
    }
    scheduler.take_out(|_| true);
    scheduler.queues.clear();
    scheduler.turns = Fair::default();
    scheduler
}

/// Lets those who wait go for so long, each request being over at once; how many went, by their numbers, in order.
fn run(scheduler: &mut Scheduler, from: Duration, ms: u64) -> Vec<u64> {
    let mut gone = Vec::new();
    for step in 1..=ms {
        let now = from + at(step);
        for (id, turn) in scheduler.poll(now) {
            if let Ok(grant) = turn {
                gone.push(id);
                scheduler.done(now, grant);
            }
        }
    }
    gone
}

#[test]
fn what_is_free_goes_at_once_and_what_is_short_goes_by_the_rate() {
    let mut scheduler = Scheduler::new(SETTINGS);
    scheduler.ask(at(0), ask(Class::Write, "a")).unwrap();
    assert_eq!(scheduler.poll(at(0)).len(), 1);
    assert_eq!(scheduler.next(), None);
    let mut scheduler = used_up(SETTINGS, at(0));
    ask_often(&mut scheduler, 100, at(0), &ask(Class::Write, "a"));
    let gone = run(&mut scheduler, at(0), 4_000).len();
    // A fifth flowed into the reserve until that was full.
    assert!((90..=100).contains(&gone), "{gone}");
}

#[test]
fn nobody_else_takes_the_reserve_of_refunds_and_disputes() {
    let mut scheduler = Scheduler::new(SETTINGS);
    ask_often(&mut scheduler, 200, at(0), &ask(Class::Write, "flood"));
    run(&mut scheduler, at(0), 1_000);
    let refunds: Vec<u64> =
        (0..5).map(|_| scheduler.ask(at(1_000), ask(Class::Reserved, "shop")).unwrap()).collect();
    let turns = scheduler.poll(at(1_000));
    assert_eq!(turns.iter().map(|(id, _)| *id).collect::<Vec<_>>(), refunds);
    // The same of places: eight of ten are for everybody.
    drop(turns);
    let mut scheduler = Scheduler::new(Settings { requests_per_s: 1_000, ..SETTINGS });
    for n in 0..20 {
        let lane = endpoint(Verb::Post, &n.to_string());
        scheduler.ask(at(0), Ask { lane, ..ask(Class::Write, "flood") }).unwrap();
    }
    assert_eq!(scheduler.poll(at(0)).len(), 8);
    scheduler.ask(at(1), ask(Class::Reserved, "shop")).unwrap();
    assert_eq!(scheduler.poll(at(1)).len(), 1);
}

#[test]
fn a_flood_of_refunds_leaves_the_others_their_part() {
    let mut scheduler = used_up(SETTINGS, at(0));
    ask_often(&mut scheduler, 200, at(0), &ask(Class::Reserved, "flood"));
    let writes: Vec<u64> =
        (0..50).map(|_| scheduler.ask(at(0), ask(Class::Write, "shop")).unwrap()).collect();
    let gone = run(&mut scheduler, at(0), 4_000);
    let theirs = gone.iter().filter(|id| writes.contains(id)).count();
    assert!(theirs >= 4 * 20 / 4, "{theirs} of {}", gone.len());
}

#[test]
fn writes_go_before_reads_and_reads_before_background_but_none_starves() {
    let mut scheduler = used_up(SETTINGS, at(0));
    let ids: Vec<Vec<u64>> = [Class::Background, Class::Read, Class::Write]
        .map(|class| (0..200).map(|_| scheduler.ask(at(0), ask(class, "a")).unwrap()).collect())
        .into();
    let gone = run(&mut scheduler, at(0), 10_000);
    let counts: Vec<usize> =
        ids.iter().map(|own| gone.iter().filter(|id| own.contains(id)).count()).collect();
    let [background, read, write] = counts[..] else { panic!() };
    assert!(background >= 5 && read > 3 * background && write > 3 * read, "{counts:?}");
}

#[test]
fn one_change_of_an_object_goes_at_a_time_and_holds_nobody_else_up() {
    let mut scheduler = Scheduler::new(SETTINGS);
    let change = |object: &str| Ask { object: Some(object.into()), ..ask(Class::Write, "a") };
    let [first, second, other] = ["/v1/charges/ch_1", "/v1/charges/ch_1", "/v1/charges/ch_2"]
        .map(|object| scheduler.ask(at(0), change(object)).unwrap());
    let mut turns = scheduler.poll(at(0));
    assert_eq!(turns.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [first, other]);
    let (_, turn) = turns.remove(0);
    let turn = turn.unwrap();
    // Stripe names the object's own limit, so it rests.
    assert!(scheduler.limited(at(10), &turn, Limiter::Object));
    scheduler.done(at(10), turn);
    assert!(scheduler.poll(at(10)).is_empty());
    assert_eq!(scheduler.next(), Some(at(10 + OBJECT_REST_MS)));
    let turns = scheduler.poll(at(10 + OBJECT_REST_MS));
    assert_eq!(turns.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [second]);
}

#[test]
fn what_cannot_go_in_time_is_refused_at_once_and_what_does_not_is_told_so() {
    let mut scheduler = used_up(SETTINGS, at(0));
    let soon = |ms| Ask { until: at(ms), ..ask(Class::Write, "a") };
    let refused = scheduler.ask(at(0), soon(10)).unwrap_err();
    // What is left in the bucket is a quarter of a request.
    assert_eq!((refused.why, refused.wait), (Why::Deadline, at(30)));
    ask_often(&mut scheduler, 20, at(0), &soon(1_500));
    assert_eq!(scheduler.ask(at(0), soon(500)).unwrap_err().why, Why::Deadline);
    // Others come in whose changes go first.
    ask_often(&mut scheduler, 50, at(0), &ask(Class::Reserved, "b"));
    let mut late = 0;
    for ms in 1..=1_500 {
        for (_, turn) in scheduler.poll(at(ms)) {
            match turn {
                Ok(grant) => scheduler.done(at(ms), grant),
                Err(refused) => {
                    assert_eq!((refused.why, ms), (Why::Expired, 1_500));
                    late += 1;
                }
            }
        }
    }
    assert!(late > 0);
}

#[test]
fn a_flood_at_one_endpoint_makes_no_other_caller_too_late_there() {
    let mut scheduler = used_up(SETTINGS, at(0));
    let in_time = |caller| Ask { until: at(2_000), ..ask(Class::Write, caller) };
    while scheduler.ask(at(0), in_time("flood")).is_ok() {}
    let shop = scheduler.ask(at(0), in_time("shop")).unwrap();
    // Its first turn is one of the next two.
    let gone = run(&mut scheduler, at(0), 100);
    assert!(gone.contains(&shop), "{gone:?}");
    // And what is beyond its own share is refused as before.
    let more = (0..100).take_while(|_| scheduler.ask(at(100), in_time("shop")).is_ok()).count();
    assert!((15..25).contains(&more), "{more}");
}

#[test]
fn as_many_wait_as_may_and_one_caller_does_not_fill_the_queue() {
    let mut scheduler = used_up(Settings { requests_per_s: 1, ..SETTINGS }, at(0));
    for _ in 0..STRIPE_QUEUED_PER_CALLER_MAX {
        scheduler.ask(at(0), ask(Class::Write, "flood")).unwrap();
    }
    assert_eq!(scheduler.ask(at(0), ask(Class::Write, "flood")).unwrap_err().why, Why::CallerFull);
    let others = STRIPE_QUEUED_MAX - STRIPE_QUEUED_RESERVED;
    for n in STRIPE_QUEUED_PER_CALLER_MAX..others {
        scheduler.ask(at(0), ask(Class::Write, &n.to_string())).unwrap();
    }
    for class in [Class::Write, Class::Read, Class::Background] {
        assert_eq!(scheduler.ask(at(0), ask(class, "late")).unwrap_err().why, Why::Full);
    }
    // A fifth of the places is left, for refunds and disputes alone.
    for n in others..STRIPE_QUEUED_MAX {
        scheduler.ask(at(0), ask(Class::Reserved, &n.to_string())).unwrap();
    }
    assert_eq!(scheduler.ask(at(0), ask(Class::Reserved, "late")).unwrap_err().why, Why::Full);
    assert_eq!(scheduler.waiting(), STRIPE_QUEUED_MAX);
}

#[test]
fn what_refunds_take_of_their_own_places_they_take_from_nobody() {
    let mut scheduler = used_up(Settings { requests_per_s: 1, ..SETTINGS }, at(0));
    for (class, places) in [
        (Class::Reserved, STRIPE_QUEUED_RESERVED),
        (Class::Write, STRIPE_QUEUED_MAX - STRIPE_QUEUED_RESERVED),
    ] {
        for n in 0..places {
            scheduler.ask(at(0), ask(class, &n.to_string())).unwrap();
        }
    }
    assert_eq!(scheduler.waiting(), STRIPE_QUEUED_MAX);
}

#[test]
fn each_limiter_of_stripes_cuts_its_own_limit() {
    let settings = Settings { requests_per_s: 100, ..SETTINGS };
    let mut scheduler = Scheduler::new(settings);
    scheduler.ask(at(0), ask(Class::Write, "a")).unwrap();
    let (_, turn) = scheduler.poll(at(0)).remove(0);
    let turn = turn.unwrap();
    let standing = |scheduler: &Scheduler| {
        let lane = &scheduler.lanes[0];
        (scheduler.allowance.milli_per_s(at(0)), lane.rate.at(at(0)), lane.at_once.at(at(0)))
    };
    assert_eq!(standing(&scheduler), (100_000, 25_000, 10));
    assert!(scheduler.limited(at(0), &turn, Limiter::EndpointRate));
    assert_eq!(standing(&scheduler), (100_000, 17_500, 10));
    assert!(scheduler.limited(at(0), &turn, Limiter::EndpointConcurrency));
    assert_eq!(standing(&scheduler), (100_000, 17_500, 1));
    assert!(scheduler.limited(at(0), &turn, Limiter::Rate));
    assert_eq!(standing(&scheduler), (70_000, 17_500, 1));
    // One word of Stripe's cuts once, however many requests heard it.
    assert!(!scheduler.limited(at(500), &turn, Limiter::Rate));
}

#[derive(Clone, Debug)]
enum Step {
    Ask { class: Class, caller: u8, lane: u8, object: Option<u8>, within_ms: u64 },
    Pass { ms: u64 },
    End,
    Leave { back: u64 },
    Refuse { limiter: u8 },
}

fn step() -> impl Strategy<Value = Step> {
    let asked = (0..4usize, 0..3u8, 0..5u8, proptest::option::of(0..2u8), 1..STRIPE_QUEUE_MS_MAX).prop_map(
        |(class, caller, lane, object, within_ms)| Step::Ask {
            class: Class::ALL[class],
            caller,
            lane,
            object,
            within_ms,
        },
    );
    prop_oneof![
        8 => asked,
        4 => (0..200u64).prop_map(|ms| Step::Pass { ms }),
        4 => Just(Step::End),
        1 => (0..20u64).prop_map(|back| Step::Leave { back }),
        1 => (0..5u8).prop_map(|limiter| Step::Refuse { limiter }),
    ]
}

fn lane(number: u8) -> Lane {
    match number {
        0 => Lane::Search,
        1 => Lane::FileWrites,
        number => endpoint(Verb::Post, &number.to_string()),
    }
}

proptest! {
    #[test]
    fn nothing_exceeds_what_the_account_lets_through_and_nobody_is_forgotten(
        steps in proptest::collection::vec(step(), 1..400),
        settings in (1..60u32, 1..30u32, 1..12u32).prop_map(|(requests_per_s, endpoint_requests_per_s, requests_at_once_max)| {
            Settings { requests_per_s, endpoint_requests_per_s, requests_at_once_max }
        }),
    ) {
        let mut scheduler = Scheduler::new(settings);
        let (mut now, mut last) = (Duration::ZERO, 0);
        let mut waiting = HashMap::<u64, (bool, Class, Duration)>::new();
        let mut under_way = Vec::<Grant>::new();
        let mut gone = Vec::<(Duration, bool)>::new();
        for step in steps {
            match step {
                Step::Ask { class, caller, lane: number, object, within_ms } => {
                    let until = now + at(within_ms);
                    let lane = lane(number);
                    let counts = lane.counts();
                    let object = object.map(|object| object.to_string().into());
                    let asked = Ask { lane, object, until, ..ask(class, &caller.to_string()) };
                    if let Ok(id) = scheduler.ask(now, asked) {
                        prop_assert!(id > last);
                        last = id;
                        waiting.insert(id, (counts, class, until));
                    }
                }
                Step::Pass { ms } => now += at(ms),
                Step::End => if !under_way.is_empty() { scheduler.done(now, under_way.remove(0)) },
                Step::Leave { back } => {
                    let id = last.saturating_sub(back);
                    scheduler.leave(id);
                    waiting.remove(&id);
                }
                Step::Refuse { limiter } => if let Some(grant) = under_way.first() {
                    let limiters = [
                        Limiter::Rate, Limiter::Concurrency, Limiter::EndpointRate, Limiter::EndpointConcurrency,
                        Limiter::Object,
                    ];
                    scheduler.limited(now, grant, limiters[usize::from(limiter)]);
                },
            }
            for (id, turn) in scheduler.poll(now) {
                let (counts, class, until) = waiting.remove(&id).unwrap();
                match turn {
                    Ok(grant) => {
                        prop_assert!(now < until);
                        gone.push((now, counts));
                        prop_assert!(!grant.in_reserve || class == Class::Reserved);
                        let same = |other: &Grant| other.object.is_some() && other.object == grant.object;
                        prop_assert!(!under_way.iter().any(same));
                        under_way.push(grant);
                    }
                    Err(refused) => prop_assert_eq!(refused.why, Why::Expired),
                }
            }
            prop_assert_eq!(scheduler.waiting(), waiting.len());
            let at_once = settings.requests_at_once_max as usize;
            prop_assert!(under_way.len() <= at_once);
            let others = under_way.iter().filter(|grant| !grant.in_reserve).count();
            prop_assert!(others <= at_once - at_once / 5);
            prop_assert!(waiting.values().all(|(_, _, until)| *until > now));
            // Whoever waits is woken, by time if by nothing else.
            prop_assert_eq!(scheduler.next().is_some(), !waiting.is_empty());
        }
        let counted: Vec<Duration> = gone.iter().filter(|(_, counts)| *counts).map(|(at, _)| *at).collect();
        let rate = f64::from(settings.requests_per_s);
        let held = (rate / 4.0).max(1.0) + (rate / 5.0).max(1.0);
        for (index, from) in counted.iter().enumerate() {
            for (count, to) in counted[index..].iter().enumerate() {
                let most = held + (*to - *from).as_secs_f64() * rate;
                prop_assert!(f64::from(u32::try_from(count).unwrap()) + 1.0 <= most + 1e-6);
            }
        }
    }

    #[test]
    fn callers_who_always_want_more_get_turns_by_their_weights(
        weights in proptest::collection::vec(1u32..6, 2..5),
        class in 0..4usize,
    ) {
        let mut scheduler = used_up(Settings { endpoint_requests_per_s: 1_000, ..SETTINGS }, at(0));
        let mut owner = HashMap::new();
        for (caller, weight) in weights.iter().enumerate() {
            for _ in 0..200 {
                let asked = Ask { weight: *weight, ..ask(Class::ALL[class], &caller.to_string()) };
                owner.insert(scheduler.ask(at(0), asked).unwrap(), caller);
            }
        }
        let mut got = vec![0u32; weights.len()];
        run(&mut scheduler, at(0), 6_000).iter().for_each(|id| got[owner[id]] += 1);
        for (one, other) in (0..weights.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let apart = (got[one] * weights[other]).abs_diff(got[other] * weights[one]);
            prop_assert!(apart <= weights[one] + weights[other] + 1, "{got:?} for {weights:?}");
        }
    }
}
