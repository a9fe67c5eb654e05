//! The measured speed of the connection to a sandbox, and how much compression pays on it. Pure.

use std::time::Duration;

use crate::archive::codec::Effort;

/// A call that takes so long goes over a network. One within a machine takes far less.
const REMOTE: Duration = Duration::from_millis(2);

/// How many bytes a second this machine compresses at least, on two cores. A connection that is faster gets them
/// uncompressed.
const COMPRESSED_A_SECOND: f64 = 150e6;

/// How many compressed bytes a second it makes at least of text with the greater effort. A slower connection
/// does not wait for it, and has less to transfer.
const THOROUGHLY_COMPRESSED_A_SECOND: f64 = 15e6;

/// The smallest transfer, in bytes, that tells a rate.
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

    /// How bytes are to be compressed: not at all where the connection takes them faster than they can be
    /// compressed. While no rate is known, they are compressed if calls go over a network.
    #[must_use]
    pub fn compression(&self) -> Option<Effort> {
        match (self.rate, self.round_trip) {
            (Some(rate), _) if rate < THOROUGHLY_COMPRESSED_A_SECOND => Some(Effort::Thorough),
            (Some(rate), _) => (rate < COMPRESSED_A_SECOND).then_some(Effort::Quick),
            (None, round_trip) => (round_trip? >= REMOTE).then_some(Effort::Quick),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_compressed_on_which_link() {
        type Case = (&'static str, Option<f64>, &'static [(u64, f64)], Option<Effort>);
        use Effort::{Quick, Thorough};
        const MB: u64 = 1_000_000;
        let ms = |ms: f64| Duration::from_secs_f64(ms / 1000.0);
        let cases: &[Case] = &[
            ("nothing known", None, &[], None),
            ("memory", Some(0.05), &[], None),
            ("the same machine", Some(1.5), &[], None),
            ("a network", Some(10.0), &[], Some(Quick)),
            ("memory, measured", Some(0.05), &[(32 * MB, 5.0)], None),
            ("a slow disk", Some(0.05), &[(32 * MB, 500.0)], Some(Quick)),
            ("100 Mbit/s", Some(20.0), &[(32 * MB, 2580.0)], Some(Thorough)),
            ("1 Gbit/s", Some(2.0), &[(32 * MB, 258.0)], Some(Quick)),
            ("10 Gbit/s", Some(2.0), &[(32 * MB, 27.0)], None),
            ("a far one with a wide way", Some(50.0), &[(32 * MB, 150.0)], None),
            ("a round trip from a bad moment", Some(60.0), &[(600_000, 12.0)], Some(Quick)),
            ("too little to tell", Some(10.0), &[(1000, 0.1)], Some(Quick)),
            ("the latest counts", Some(10.0), &[(32 * MB, 2000.0), (32 * MB, 20.0)], None),
        ];
        for &(name, round_trip, transfers, expected) in cases {
            let mut link = Link::default();
            if let Some(round_trip) = round_trip {
                link.answered(ms(round_trip));
            }
            for &(bytes, took) in transfers {
                link.transferred(bytes, ms(took));
            }
            assert_eq!(link.compression(), expected, "{name}");
        }
    }

    #[test]
    fn the_quickest_answer_is_the_round_trip() {
        let mut link = Link::default();
        link.answered(Duration::from_millis(40));
        link.answered(Duration::from_millis(1));
        assert_eq!(link.compression(), None);
    }
}
