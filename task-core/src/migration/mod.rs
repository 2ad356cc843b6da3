//! Moving a live service from one backend to another.

mod answers;
mod audit;
mod backfill;
mod bucket;
mod budget;
mod canary;
mod compare;
mod control;
mod coordinator;
mod copied;
mod difference;
mod error;
mod event_bus;
mod facade;
mod gone;
mod guardian;
mod guards;
mod job;
mod jobs;
mod lost;
mod marker;
mod measure;
mod measured;
mod member;
mod mirror;
mod move_error;
mod moving;
mod notifier;
mod pace;
mod queue;
mod repair;
mod report;
mod shadow;
mod sides;
mod stage;
mod state_store;
mod subscriber;
mod sync;
mod thresholds;
mod turn;
mod unmoved;
mod verify;
mod waiting;
mod walk;
mod warden;
mod way;
mod worker;
mod write;

pub use answers::{
    Advance, Cause, Condition, Confirmation, Moved, Plan, PlannedStep, Port, PortStatus, Readiness,
    ReplicaStatus, Rollback, Run, Share, ShareError, StageShare, Status, Unanswered,
};
pub use audit::AuditEntry;
pub use bucket::Bucket;
pub use budget::{Budget, Budgets, Excess};
pub use compare::Mismatch;
pub use control::{Control, ControlError, WaitingFrom};
pub use coordinator::{Coordinator, CoordinatorOptions};
pub use difference::{Difference, Disagreement, FieldDifference};
pub use error::{MigrationError, Refusal};
pub use event_bus::{ParallelBusOptions, ParallelEventBus, shadow_topic};
pub use facade::{Differences, DifferencesRequest, Migration, MigrationOptions, VerifyRequest};
pub use guardian::{Guardian, StepBack, StepsBack};
pub use guards::Caution;
pub use job::{Counts, Fix, JobKind, JobState, JobStatus, Left, Pacing, Phase, Scope};
pub use measure::{Calls, Finding, Latencies, Measurement, MovedCall, Recorder};
pub use member::{Beat, Member, MemberOptions, Pin};
pub use move_error::MoveError;
pub use notifier::ParallelNotifier;
pub use repair::{Drained, KindCount, MarkCount, Marks};
pub use report::Report;
pub use shadow::{
    COMPARING_GROUP, Listening, ShadowComparison, ShadowExample, ShadowFinding, ShadowReport,
    ShadowStatus,
};
pub use stage::{Side, Stage};
pub use state_store::ParallelStateStore;
pub use sync::Synced;
pub use thresholds::{ThresholdError, Thresholds};
pub use unmoved::UnmovedStateStore;
pub use way::{BusStage, NotifierStage, PortStage, Way};

#[cfg(test)]
mod tests;
