//! When a call that failed is made again. Pure.

use std::time::Duration;

use crate::random;

/// How often a call is made at most.
pub const ATTEMPTS: u32 = 5;

/// The longest pause, before chance shortens it.
const PAUSE_MAX: Duration = Duration::from_secs(8);

/// How long to wait after the attempt of that number, counted from 0, where another one follows. The pauses double, and
/// `chance` (from 0 to 1) takes up to half of each away, so that calls that failed together are not repeated together.
#[must_use]
pub fn pause(attempt: u32, chance: f64) -> Option<Duration> {
    if attempt + 1 >= ATTEMPTS {
        return None;
    }
    let whole = Duration::from_millis(250).saturating_mul(2_u32.saturating_pow(attempt)).min(PAUSE_MAX);
    Some(whole.mul_f64(1.0 - chance.clamp(0.0, 1.0) / 2.0))
}

/// A random number from 0 to 1.
#[must_use]
pub fn chance() -> f64 {
    let bits = u32::try_from(random::bits() >> 32).unwrap_or(0);
    f64::from(bits) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let whole: Vec<_> =
            (0..6).map(|attempt| pause(attempt, 0.0).map(|pause| pause.as_millis())).collect();
        assert_eq!(whole, [Some(250), Some(500), Some(1000), Some(2000), None, None]);
        let short: Vec<_> =
            (0..2).map(|attempt| pause(attempt, 1.0).map(|pause| pause.as_millis())).collect();
        assert_eq!(short, [Some(125), Some(250)]);
    }

    #[test]
    fn chance_lies_between_0_and_1_and_varies() {
        let some: Vec<f64> = (0..20).map(|_| chance()).collect();
        assert!(some.iter().all(|chance| (0.0..=1.0).contains(chance)));
        assert!(some.iter().any(|chance| (chance - some[0]).abs() > f64::EPSILON));
    }
}
