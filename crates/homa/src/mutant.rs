//! Variants of the protocol that are broken on purpose, to see that simulations notice. Only with the feature
//! `mutants`, which nothing that ships turns on; without it [`is_mutant`] is `false` and leaves no trace.

/// What is broken.
#[cfg(feature = "mutants")]
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Mutant {
    /// A client never acknowledges responses.
    ForgetAcks,
    /// A server keeps no record of the requests it has finished.
    ForgetCompleted,
    /// Of the known gaps of a message, the last is not asked for.
    SkipLastGap,
    /// Grants do not keep to `max_incoming`.
    GrantBeyondBudget,
    /// A request that was all sent arms no timer.
    LostTimer,
    /// RESEND is not answered.
    IgnoreResend,
    /// BUSY shows no sign of life.
    IgnoreBusy,
    /// Every eighth message delivered keeps its pages for ever.
    LeakPages,
    /// Every sixteenth response is not reported.
    LoseEvents,
    /// Every sixteenth response is reported twice.
    RepeatEvents,
    /// Retransmissions carry the beginning of the message, whatever their offset.
    RetransmitWrongBytes,
    /// Bytes count as received as often as they come.
    CountDuplicates,
    /// Deadlines are not kept.
    IgnoreDeadlines,
    /// The message with the most bytes left is sent first.
    ReverseSrpt,
    /// The oldest message has no share of what is sent.
    StarveOldest,
    /// Messages that wait for memory never get any.
    ForgetWaiters,
    /// Packets are taken for an RPC whoever sent them.
    TrustAnybody,
    /// Ids begin at the same number after every start.
    ReuseIds,
    /// Bytes of ended messages stay accounted for.
    LeakSendBytes,
    /// Nobody is told when there is room for sends again.
    LoseWritable,
    /// A client never gives up.
    NeverTimeOut,
    /// A server keeps requests that their client has given up.
    IgnoreUnknown,
    /// What is missing at the end of a message is not asked for.
    SkipTail,
    /// NEED_ACK is not answered.
    IgnoreNeedAck,
}

#[cfg(feature = "mutants")]
impl Mutant {
    /// All of them.
    pub const ALL: [Mutant; 24] = [
        Mutant::ForgetAcks,
        Mutant::ForgetCompleted,
        Mutant::SkipLastGap,
        Mutant::GrantBeyondBudget,
        Mutant::LostTimer,
        Mutant::IgnoreResend,
        Mutant::IgnoreBusy,
        Mutant::LeakPages,
        Mutant::LoseEvents,
        Mutant::RepeatEvents,
        Mutant::RetransmitWrongBytes,
        Mutant::CountDuplicates,
        Mutant::IgnoreDeadlines,
        Mutant::ReverseSrpt,
        Mutant::StarveOldest,
        Mutant::ForgetWaiters,
        Mutant::TrustAnybody,
        Mutant::ReuseIds,
        Mutant::LeakSendBytes,
        Mutant::LoseWritable,
        Mutant::NeverTimeOut,
        Mutant::IgnoreUnknown,
        Mutant::SkipTail,
        Mutant::IgnoreNeedAck,
    ];
}

/// Whether a configuration asks for a mutant.
#[cfg(feature = "mutants")]
macro_rules! is_mutant {
    ($config:expr, $name:ident) => {
        $config.mutant == Some($crate::Mutant::$name)
    };
}

/// Never.
#[cfg(not(feature = "mutants"))]
macro_rules! is_mutant {
    ($config:expr, $name:ident) => {
        false
    };
}

pub(crate) use is_mutant;
