//! The measured speed of the connection to a sandbox, and whether compression pays on it. Pure.

use std::time::Duration;

/// A call that takes so long goes over a network. One within a machine takes far less.
const REMOTE: Duration = Duration::from_millis(2);

/// How many bytes a second this machine compresses at least, on two cores. A connection that is faster gets them
/// uncompressed.
const COMPRESSED_A_SECOND: f64 = 150e6;

/// Less than that is too little to tell a rate by.
const TELLING: u64 = 256 * 1024;

/// The connection to a sandbox, as measured by the calls so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Link {
    round_trip: Option<Duration>,
    rate: Option<f64>,
}

impl Link {
    /// A call without content took so long.
    pub fn answered(&mut self, took: Duration) {
        let least = self.round_trip.map_or(took, |least| least.min(took));
        self.round_trip = Some(least);
    }

    /// A transfer of so many bytes took so long. The latest counts: a link may change.
    pub fn transferred(&mut self, bytes: u64, took: Duration) {
        if bytes < TELLING {
            return;
        }
        // A round trip that was measured at a bad moment must not make a rate out of nothing.
        let own = took.saturating_sub(self.round_trip.unwrap_or_default()).max(took / 2);
        let own = own.max(Duration::from_micros(1));
        #[allow(clippy::cast_precision_loss, reason = "a rate needs no more than a few digits")]
        let bytes = bytes as f64;
        self.rate = Some(bytes / own.as_secs_f64());
    }

    /// Whether bytes are to be compressed: not where they are taken faster than they can be. While no rate is known,
    /// whether calls go over a network.
    #[must_use]
    pub fn wants_compression(&self) -> bool {
        match (self.rate, self.round_trip) {
            (Some(rate), _) => rate < COMPRESSED_A_SECOND,
            (None, Some(round_trip)) => round_trip >= REMOTE,
            (None, None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_on_which_link() {
        type Case = (&'static str, Option<f64>, &'static [(u64, f64)], bool);
        const MB: u64 = 1_000_000;
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1000.0);
        let cases: &[Case] = &[
            ("nothing known", None, &[], false),
            ("memory", Some(0.05), &[], false),
            ("the same machine", Some(1.5), &[], false),
            ("a network", Some(10.0), &[], true),
            ("memory, measured", Some(0.05), &[(32 * MB, 5.0)], false),
            ("a slow disk", Some(0.05), &[(32 * MB, 500.0)], true),
            ("100 Mbit/s", Some(20.0), &[(32 * MB, 2580.0)], true),
            ("1 Gbit/s", Some(2.0), &[(32 * MB, 258.0)], true),
            ("10 Gbit/s", Some(2.0), &[(32 * MB, 27.0)], false),
            ("a far one with a wide way", Some(50.0), &[(32 * MB, 150.0)], false),
            ("a round trip from a bad moment", Some(60.0), &[(600_000, 12.0)], true),
            ("too little to tell", Some(10.0), &[(1000, 0.1)], true),
            ("the latest counts", Some(10.0), &[(32 * MB, 2000.0), (32 * MB, 20.0)], false),
        ];
        for &(name, round_trip, transfers, expected) in cases {
            let mut link = Link::default();
            if let Some(round_trip) = round_trip {
                link.answered(ms(round_trip));
            }
            for &(bytes, took) in transfers {
                link.transferred(bytes, ms(took));
            }
            assert_eq!(link.wants_compression(), expected, "{name}");
        }
    }

    #[test]
    fn the_quickest_answer_is_the_round_trip() {
        let mut link = Link::default();
        link.answered(Duration::from_millis(40));
        link.answered(Duration::from_millis(1));
        assert!(!link.wants_compression());
    }
}
