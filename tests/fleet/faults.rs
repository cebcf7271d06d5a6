//! What can happen to a database and to the network before it.

use crate::{fleet::Fleet, proxy::Network};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is killed, and starts again when the fault ends.
    Killed,
    /// It is killed, and starts again at once.
    Restarted,
    /// Its processes are stopped.
    Paused,
    ReadOnly,
    /// It has no memory, or no disk.
    Full,
    /// It becomes a replica.
    FailedOver,
    /// The network breaks all connections.
    Cut,
    /// The network loses everything, and no connection breaks.
    Silent,
}

impl Fault {
    pub(crate) const ALL: [Self; 8] = [
        Self::Killed,
        Self::Restarted,
        Self::Paused,
        Self::ReadOnly,
        Self::Full,
        Self::FailedOver,
        Self::Cut,
        Self::Silent,
    ];

    pub(crate) fn is_of_network(self) -> bool {
        matches!(self, Self::Cut | Self::Silent)
    }

    pub(crate) fn begin(self, fleet: &Fleet) {
        let database = &fleet.database;
        match self {
            Self::Killed => database.kill(),
            Self::Restarted => {
                database.kill();
                database.start_again();
            }
            Self::Paused => database.pause(),
            Self::ReadOnly => database.set_read_only(true),
            Self::Full => database.set_full(true),
            Self::FailedOver => database.set_failed_over(true),
            Self::Cut => fleet.proxy.set(Network::Cut),
            Self::Silent => fleet.proxy.set(Network::Silent),
        }
    }

    pub(crate) fn end(self, fleet: &Fleet) {
        let database = &fleet.database;
        match self {
            Self::Killed => database.start_again(),
            Self::Restarted => {}
            Self::Paused => database.resume(),
            Self::ReadOnly => database.set_read_only(false),
            Self::Full => database.set_full(false),
            Self::FailedOver => database.set_failed_over(false),
            Self::Cut | Self::Silent => fleet.proxy.set(Network::Open),
        }
    }
}
