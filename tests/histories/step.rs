//! The steps of a history, chosen at random.

use std::time::Duration;

use tower_salesforce_auth::observer::StoreOperation;

use crate::{
    faulty::Fault,
    leased::Statement,
    rotating::{Answer, Flaw},
};

/// One of the two processes.
pub(crate) type Process = usize;

#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// Sends a request through the layer, in the background.
    Request(Process),
    /// Asks for the session without a layer, and reports it if it is rejected.
    Session(Process),
    Refresh(Process),
    /// Refreshes by hand, and waits for it.
    AwaitRefresh(Process),
    Save(Process),
    AwaitSave(Process),
    /// Sets the present session once more.
    SetAgain(Process),
    SetLogin(Process),
    SetAccessToken(Process),
    Reset(Process),
    Logout(Process, bool),
    Quiesce(Process),
    /// The caller that has waited the longest gives up.
    GiveUp(Process),
    /// The process ends, and another one begins.
    Kill(Process),
    Expire,
    Store(StoreOperation, Fault, u32),
    /// A fault of a lease that is renewed or released.
    Lease(Statement, Fault, u32),
    /// All leases end.
    LoseLeases,
    /// Whether notices are lost from now on.
    LoseNotices(bool),
    Token(Answer),
    Wait(Duration),
}

/// The generator `SplitMix64`.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5851_F42D_4C95_7F2D)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    pub(crate) fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn process(&mut self) -> Process {
        usize::from(self.is(50))
    }

    /// Mostly short, sometimes longer than the refresh timeout.
    fn delay(&mut self) -> Duration {
        let millis = match self.below(10) {
            0..5 => self.below(100),
            5..8 => self.below(1_500),
            8 => self.below(12_000),
            _ => self.below(40_000),
        };
        Duration::from_millis(millis)
    }

    pub(crate) fn step(&mut self) -> Step {
        let process = self.process();
        match self.below(100) {
            0..12 => Step::Request(process),
            12..17 => Step::Session(process),
            17..24 => Step::Refresh(process),
            24..26 => Step::AwaitRefresh(process),
            26..31 => Step::Save(process),
            31..33 => Step::AwaitSave(process),
            33..35 => Step::SetAgain(process),
            35..38 => Step::SetLogin(process),
            38..42 => Step::SetAccessToken(process),
            42..46 => Step::Reset(process),
            46..49 => Step::Logout(process, self.is(50)),
            49 => Step::Quiesce(process),
            50..53 => Step::GiveUp(process),
            53..55 => Step::Kill(process),
            55..63 => Step::Expire,
            63..71 => self.store(),
            71..73 => self.lease(),
            73..83 => Step::Token(self.answer()),
            _ => Step::Wait(self.delay()),
        }
    }

    fn store(&mut self) -> Step {
        let operation = match self.below(8) {
            0 => StoreOperation::Lock,
            1..3 => StoreOperation::Load,
            3..7 => StoreOperation::Save,
            _ => StoreOperation::Delete,
        };
        Step::Store(operation, self.fault(), self.times())
    }

    fn fault(&mut self) -> Fault {
        match self.below(12) {
            0..5 => Fault::Fails,
            5 => Fault::FailsAfterwards,
            6..8 => Fault::Takes(self.delay()),
            8 => Fault::AnswersAfter(self.delay()),
            9..11 => Fault::FailsAndIsDoneAfter(self.delay()),
            _ => Fault::Hangs,
        }
    }

    fn times(&mut self) -> u32 {
        if self.is(25) { 1 } else { 3 }
    }

    fn lease(&mut self) -> Step {
        match self.below(6) {
            0..2 => Step::Lease(Statement::Renew, self.fault(), self.times()),
            2 => Step::Lease(Statement::Release, self.fault(), 1),
            3..5 => Step::LoseLeases,
            _ => Step::LoseNotices(self.is(70)),
        }
    }

    fn answer(&mut self) -> Answer {
        match self.below(20) {
            0..10 => Answer::Exchange(self.call_delay(), self.call_delay()),
            10..13 => Answer::Busy(None),
            13..15 => Answer::Busy(Some(self.below(40))),
            15..18 => {
                let flaw = match self.below(4) {
                    0 => Flaw::ForeignInstance,
                    1 => Flaw::NoAccessToken,
                    2 => Flaw::Dpop,
                    _ => Flaw::Signature,
                };
                Answer::Unusable(flaw, self.call_delay())
            }
            18 => Answer::Lost(self.call_delay()),
            _ => Answer::Silent,
        }
    }

    /// Two of them are shorter than the refresh timeout.
    fn call_delay(&mut self) -> Duration {
        self.delay().min(Duration::from_millis(14_900))
    }
}
