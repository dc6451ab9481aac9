//! What a status says of a tunnel: changes that do not last are not told.

use resources::Timestamp;
use resources::remote_instance::TunnelStatus;

use crate::inventory::Tunnel;
use crate::text::shortened;

/// How long a change must last to be told.
pub(crate) const LASTING_SECONDS: i64 = 60;

/// Longest agent version that is told.
const MAX_AGENT_VERSION: usize = 64;

/// What is told, and when to look again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) tunnel: Option<TunnelStatus>,
    /// Since when a tunnel that is told as connected is not reported at all.
    pub(crate) missed_since: Option<Timestamp>,
    pub(crate) look_again: Option<Timestamp>,
}

/// Decides what to tell.
///
/// | told before | reported | its age | told now |
/// |---|---|---|---|
/// | nothing | nothing | | nothing |
/// | nothing | up or down | any | the report, at once: the first connection is what a person waits for |
/// | the same | the same | any | the same |
/// | anything | another | less than 60 s | what was told; look again when it is 60 s old |
/// | anything | another | 60 s or more | the report |
/// | up | nothing | missed for less than 60 s | what was told; look again after 60 s |
/// | up | nothing | missed for 60 s or more | down, since it was first missed |
/// | down | nothing | | what was told |
///
/// So an agent that flaps, or a whole fleet that moves to another proxy, writes no status at all. For the same reason
/// `since` is no part of "the same": a tunnel that was away for less than a minute goes on from when it was told up.
pub(crate) fn tell(
    before: Option<&TunnelStatus>,
    missed_before: Option<Timestamp>,
    reported: Option<&Tunnel>,
    now: Timestamp,
) -> Told {
    let keep = |missed_since, look_again| Told { tunnel: before.cloned(), missed_since, look_again };
    let (Some(told), Some(tunnel)) = (before, reported) else {
        return match (before, reported) {
            (Some(told), None) if told.connected => {
                let since = missed_before.unwrap_or(now);
                let at = since.plus_seconds(LASTING_SECONDS);
                if now < at {
                    return keep(Some(since), Some(at));
                }
                let gone = TunnelStatus { connected: false, since: Some(since), ..told.clone() };
                Told { tunnel: Some(gone), missed_since: None, look_again: None }
            }
            (None, Some(tunnel)) => {
                Told { tunnel: Some(status(tunnel)), missed_since: None, look_again: None }
            }
            (_, _) => keep(None, None),
        };
    };
    if same(told, tunnel) {
        return keep(None, None);
    }
    // A clock that is a little ahead makes the wait a little longer; what claims to come from far ahead is told at once.
    let at = tunnel.since.plus_seconds(LASTING_SECONDS);
    if now < at && tunnel.since < now.plus_seconds(LASTING_SECONDS) {
        keep(None, Some(at))
    } else {
        Told { tunnel: Some(status(tunnel)), missed_since: None, look_again: None }
    }
}

fn same(told: &TunnelStatus, tunnel: &Tunnel) -> bool {
    let Tunnel { connected, since: _, agent_version, protocol_version } = tunnel;
    told.connected == *connected
        && told.protocol_version == protocol_version.map(i32::from)
        && match (&told.agent_version, agent_version) {
            (Some(told), Some(version)) => told == version || *told == shortened(version, MAX_AGENT_VERSION),
            (told, version) => told.is_none() && version.is_none(),
        }
}

fn status(tunnel: &Tunnel) -> TunnelStatus {
    let Tunnel { connected, since, agent_version, protocol_version } = tunnel;
    TunnelStatus {
        connected: *connected,
        since: Some(*since),
        agent_version: agent_version.as_ref().map(|version| shortened(version, MAX_AGENT_VERSION)),
        protocol_version: protocol_version.map(i32::from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(connected: bool, since: i64) -> Tunnel {
        Tunnel { connected, since: Timestamp(since), agent_version: None, protocol_version: Some(2) }
    }

    #[test]
    fn every_row() {
        let (up, down) = (tunnel(true, 100), tunnel(false, 500));
        let now = Timestamp;
        // (told, reported, now, told now, look again)
        for (told, reported, at, expected, again) in [
            (None, None, 500, None, None),
            (None, Some(&up), 100, Some(&up), None),
            (None, Some(&down), 500, Some(&down), None),
            (Some(&up), Some(&up), 500, Some(&up), None),
            (Some(&up), Some(&down), 500, Some(&up), Some(560)),
            (Some(&up), Some(&down), 559, Some(&up), Some(560)),
            (Some(&up), Some(&down), 560, Some(&down), None),
            (Some(&down), Some(&tunnel(true, 600)), 600, Some(&down), Some(660)),
            (Some(&down), Some(&tunnel(true, 600)), 660, Some(&tunnel(true, 600)), None),
            (Some(&up), Some(&tunnel(true, 600)), 610, Some(&up), None),
            (Some(&up), Some(&tunnel(true, 600)), 660, Some(&up), None),
            (Some(&down), None, 9_999, Some(&down), None),
        ] {
            let told = tell(told.map(status).as_ref(), None, reported, now(at));
            assert_eq!(told.tunnel, expected.map(status), "{reported:?} at {at}");
            assert_eq!(told.look_again, again.map(Timestamp), "{reported:?} at {at}");
        }
    }

    #[test]
    fn a_tunnel_nobody_reports_is_gone_after_a_minute() {
        let up = status(&tunnel(true, 100));
        let first = tell(Some(&up), None, None, Timestamp(500));
        assert_eq!((first.tunnel.as_ref(), first.look_again), (Some(&up), Some(Timestamp(560))));
        let second = tell(Some(&up), first.missed_since, None, Timestamp(560));
        assert_eq!(
            second.tunnel,
            Some(TunnelStatus { since: Some(Timestamp(500)), ..status(&tunnel(false, 0)) })
        );
    }

    #[test]
    fn a_clock_ahead_of_ours_hides_nothing_for_long() {
        let gone = |since| {
            tell(Some(&status(&tunnel(true, 100))), None, Some(&tunnel(false, since)), Timestamp(500))
        };
        assert_eq!(gone(502).look_again, Some(Timestamp(562)));
        assert_eq!(gone(9_000).tunnel, Some(status(&tunnel(false, 9_000))));
    }
}
