use std::time::Duration;

use proptest::prelude::*;

use super::{ReconnectPolicy, Reconnecting, ReconnectingClientFactory};
use crate::connect::{ConnectOptions, Connector};
use crate::testing::Clock;
use crate::{NothingToRetry, PeerAddr, Protocol};

fn state(policy: ReconnectPolicy) -> Reconnecting {
    let nobody = |_: &PeerAddr| None::<Box<dyn Protocol>>;
    ReconnectingClientFactory::with_policy(nobody, policy).handle()
}

fn delays(policy: ReconnectPolicy, count: usize) -> Vec<f64> {
    let state = state(policy);
    let next = || state.0.next_delay().map(|delay| delay.as_secs_f64());
    std::iter::from_fn(next).take(count).collect()
}

#[test]
fn delays_grow_by_the_factor_up_to_the_longest() {
    let policy = ReconnectPolicy {
        factor: 2.0,
        jitter: 0.0,
        max_delay: Duration::from_secs(20),
        ..ReconnectPolicy::default()
    };
    assert_eq!(delays(policy.clone(), 6), [2.0, 4.0, 8.0, 16.0, 20.0, 20.0]);
    let few = ReconnectPolicy { max_retries: Some(3), ..policy };
    assert_eq!(delays(few, 6), [2.0, 4.0, 8.0]);
}

#[test]
fn a_reset_begins_anew() {
    let state = state(ReconnectPolicy {
        factor: 2.0,
        jitter: 0.0,
        max_retries: Some(2),
        ..ReconnectPolicy::default()
    });
    let next = || state.0.next_delay().map(|delay| delay.as_secs());
    assert_eq!([next(), next(), next()], [Some(2), Some(4), None]);
    assert_eq!((state.retries(), state.delay()), (3, Duration::from_secs(4)));
    state.reset_delay();
    assert_eq!((next(), state.retries()), (Some(2), 1));
    state.stop_trying();
    assert_eq!((next(), state.is_trying()), (None, false));
    state.reset_delay();
    assert_eq!((next(), state.is_trying()), (Some(2), true));
    assert_eq!(state.retry(), Err(NothingToRetry));
}

#[test]
fn delays_that_do_not_fit_are_the_longest() {
    let policy = ReconnectPolicy {
        initial_delay: Duration::MAX,
        max_delay: Duration::MAX,
        seed: Some(1),
        ..ReconnectPolicy::default()
    };
    assert!(delays(policy, 50).iter().all(|delay| *delay > 0.0));
}

#[test]
#[should_panic(expected = "would let the delays shrink")]
fn a_factor_below_one_is_refused() {
    state(ReconnectPolicy { factor: 0.5, ..ReconnectPolicy::default() });
}

#[test]
#[should_panic(expected = "is not a part of the delay")]
fn a_jitter_above_one_is_refused() {
    state(ReconnectPolicy { jitter: f64::NAN, ..ReconnectPolicy::default() });
}

/// Retries by a clock; the connector is never started, for no hub turns.
#[test]
fn one_delay_runs_at_a_time_and_can_be_stopped() {
    let clock = Clock::install();
    let factory = ReconnectingClientFactory::with_policy(
        |_: &PeerAddr| None::<Box<dyn Protocol>>,
        ReconnectPolicy { seed: Some(3), ..ReconnectPolicy::default() },
    );
    let state = factory.handle();
    warren_hub::run(move || {
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let connector = Connector::new(addr.into(), Box::new(factory), ConnectOptions::default());
        state.keep(&connector);
        state.retry().unwrap();
        state.retry().unwrap();
        assert_eq!((clock.delayed_calls(), state.retries()), (1, 2));
        state.stop_trying();
        assert_eq!(clock.delayed_calls(), 0);
        state.retry().unwrap();
        assert_eq!(clock.delayed_calls(), 0, "it does not try any more");
        drop(connector);
    });
}

proptest! {
    /// No delay is longer than the longest, and each lies round what it should be.
    #[test]
    fn delays_stay_within_their_bounds(
        seed: u64,
        initial_ms in 0..100_000_u64,
        max_ms in 1..1_000_000_u64,
        factor in 1.0..10.0,
        jitter in 0.0..=1.0,
    ) {
        let policy = ReconnectPolicy {
            initial_delay: Duration::from_millis(initial_ms),
            max_delay: Duration::from_millis(max_ms),
            factor,
            jitter,
            seed: Some(seed),
            ..ReconnectPolicy::default()
        };
        let most = policy.max_delay.as_secs_f64();
        let mut before = policy.initial_delay.as_secs_f64();
        for delay in delays(policy.clone(), 40) {
            prop_assert!((0.0..=most).contains(&delay));
            let mean = (before * factor).min(most);
            // Box and Muller's radius is at most that of the smallest number: 8.6.
            let reach = mean * jitter * 8.7 + 1e-6;
            prop_assert!((delay - mean).abs() <= reach, "{delay} from {before}");
            before = delay;
        }
        prop_assert_eq!(delays(policy.clone(), 40), delays(policy, 40), "a seed replays");
    }

    /// Clients that lose their server at the same time do not come back at the same time.
    #[test]
    fn seeds_differ(seed in 0..u64::MAX - 1) {
        let at = |seed| {
            let policy = ReconnectPolicy { seed: Some(seed), ..ReconnectPolicy::default() };
            delays(policy, 20)
        };
        let (one, two) = (at(seed), at(seed + 1));
        prop_assert!(one.iter().zip(&two).all(|(one, two)| one != two));
    }
}
