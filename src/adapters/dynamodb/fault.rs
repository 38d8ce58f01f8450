//! How DynamoDB's errors are read.

use super::super::aws::{Failure, Kind};
use super::super::quoted;
use super::super::retry::Transient;
use crate::ports::LedgerError;
use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::CancellationReason;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use aws_smithy_types::error::operation::BuildError;
use std::time::Duration;

/// Why a request to DynamoDB failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The condition of the transaction's item with this number did not hold; 0 for a single write.
    Condition {
        /// Which.
        item: usize,
    },
    /// Another write to one of the items was under way.
    Contended,
    /// Anything that all AWS services have in common.
    Other(Failure),
    /// The last attempt failed so, and an earlier one may have landed.
    Doubtful {
        /// Why the last attempt failed.
        last: Box<Self>,
        /// Why the first of those that may have landed failed.
        earlier: Box<Self>,
    },
}

impl Fault {
    /// Makes the fault of a request that could not be built, which only a mistake of ours explains.
    pub(super) fn built(error: &BuildError) -> Self {
        Self::Other(Failure { kind: Kind::Rejected, code: String::new(), why: error.to_string() })
    }

    /// Tells which condition did not hold at the last attempt.
    pub(super) fn condition(&self) -> Option<usize> {
        match self {
            Self::Condition { item } => Some(*item),
            Self::Contended | Self::Other(_) => None,
            Self::Doubtful { last, .. } => last.condition(),
        }
    }

    /// Gives DynamoDB's code for what went wrong at the last attempt.
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Condition { .. } | Self::Contended => "",
            Self::Other(failure) => &failure.code,
            Self::Doubtful { last, .. } => last.code(),
        }
    }

    fn words(&self) -> String {
        match self {
            Self::Condition { .. } => "the record has changed".to_owned(),
            Self::Contended => "the record is contended".to_owned(),
            Self::Other(failure) => failure.why.clone(),
            Self::Doubtful { last, earlier } => quoted(&format!("{}; then {}", earlier.words(), last.words())),
        }
    }

    /// Names it by what the controller does about it.
    pub(super) fn into_error(self, call: &'static str, table: &str) -> LedgerError {
        let why = self.words();
        let failure = match self {
            Self::Condition { .. } => return LedgerError::Conflict,
            Self::Contended => return LedgerError::Unavailable { call, why },
            Self::Doubtful { last, .. } => {
                return match last.into_error(call, table) {
                    // What has changed the record may have been the attempt before.
                    LedgerError::Conflict | LedgerError::LeaseLost | LedgerError::Unavailable { .. } => {
                        LedgerError::Unavailable { call, why }
                    }
                    // Whether a write has landed or not, these are the operator's to mend.
                    error @ (LedgerError::Denied { .. } | LedgerError::Unreadable { .. } | LedgerError::NoTable { .. }) => error,
                };
            }
            Self::Other(failure) => failure,
        };
        let about_keys = failure.code == "ValidationException" && failure.why.contains("key");
        match failure.kind {
            _ if failure.code == "ResourceNotFoundException" => {
                LedgerError::NoTable { table: table.to_owned(), why: "it does not exist".to_owned() }
            }
            Kind::Rejected if about_keys => LedgerError::NoTable { table: table.to_owned(), why: failure.why },
            Kind::Denied => LedgerError::Denied { call, why: failure.why },
            Kind::NoAnswer | Kind::Fault | Kind::Throttled | Kind::Unsigned | Kind::Rejected => {
                LedgerError::Unavailable { call, why: failure.why }
            }
        }
    }
}

impl Transient for Fault {
    fn may_pass(&self) -> bool {
        match self {
            Self::Condition { .. } => false,
            Self::Contended => true,
            Self::Other(failure) => failure.may_pass(),
            Self::Doubtful { last, .. } => last.may_pass(),
        }
    }

    fn may_have_landed(&self) -> bool {
        match self {
            Self::Condition { .. } | Self::Contended => false,
            Self::Other(failure) => failure.may_have_landed(),
            Self::Doubtful { .. } => true,
        }
    }

    fn timed_out(deadline: Duration) -> Self {
        Self::Other(Failure::timed_out(deadline))
    }

    fn after_ambiguous(self, earlier: Self) -> Self {
        Self::Doubtful { last: Box::new(self), earlier: Box::new(earlier) }
    }
}

/// An operation's errors, as far as they are DynamoDB's own.
pub(super) trait Conditional: ProvideErrorMetadata + std::error::Error + 'static {
    /// Gives why a transaction was cancelled, item by item.
    fn reasons(&self) -> &[CancellationReason] {
        &[]
    }
}

impl Conditional for TransactWriteItemsError {
    fn reasons(&self) -> &[CancellationReason] {
        match self {
            Self::TransactionCanceledException(cancelled) => cancelled.cancellation_reasons(),
            _ => &[],
        }
    }
}

macro_rules! conditional {
    ($($operation:ident :: $error:ident),* $(,)?) => {
        $(impl Conditional for aws_sdk_dynamodb::operation::$operation::$error {})*
    };
}

conditional!(
    get_item::GetItemError,
    query::QueryError,
    update_item::UpdateItemError,
    delete_item::DeleteItemError,
    create_table::CreateTableError,
    describe_table::DescribeTableError,
    describe_time_to_live::DescribeTimeToLiveError,
    update_time_to_live::UpdateTimeToLiveError,
);

impl<E: Conditional> From<SdkError<E, HttpResponse>> for Fault {
    fn from(error: SdkError<E, HttpResponse>) -> Self {
        let reasons = error.as_service_error().map(Conditional::reasons).unwrap_or_default();
        let of_reasons = of_reasons(reasons);
        of_reasons.unwrap_or_else(|| of_failure(Failure::from(error)))
    }
}

/// Reads why a transaction was cancelled. A condition that failed says more than contention.
fn of_reasons(reasons: &[CancellationReason]) -> Option<Fault> {
    let with = |code: &str| reasons.iter().position(|reason| reason.code() == Some(code));
    if let Some(item) = with("ConditionalCheckFailed") {
        return Some(Fault::Condition { item });
    }
    if with("TransactionConflict").is_some() {
        return Some(Fault::Contended);
    }
    let reason = reasons.iter().find(|reason| reason.code().is_some_and(|code| code != "None"))?;
    let code = match reason.code() {
        Some("ThrottlingError" | "ProvisionedThroughputExceeded") => "ThrottlingException",
        Some("ValidationError") => "ValidationException",
        other => other.unwrap_or_default(),
    };
    Some(Fault::Other(Failure::service(code, reason.message().unwrap_or_default(), 400)))
}

fn of_failure(failure: Failure) -> Fault {
    match failure.code.as_str() {
        "ConditionalCheckFailedException" => Fault::Condition { item: 0 },
        "TransactionConflictException" | "ReplicatedWriteConflictException" => Fault::Contended,
        // An earlier sending of the same transaction is still at work, and may land.
        "TransactionInProgressException" => Fault::Other(Failure { kind: Kind::NoAnswer, ..failure }),
        _ => Fault::Other(failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(codes: &[&str]) -> Option<Fault> {
        let reasons: Vec<_> = codes.iter().map(|code| CancellationReason::builder().code(*code).build()).collect();
        of_reasons(&reasons)
    }

    #[test]
    fn a_cancelled_transaction_says_which_of_its_items_was_to_blame() {
        assert_eq!(reasons(&["ConditionalCheckFailed", "None"]), Some(Fault::Condition { item: 0 }));
        assert_eq!(reasons(&["TransactionConflict", "ConditionalCheckFailed"]), Some(Fault::Condition { item: 1 }));
        assert_eq!(reasons(&["TransactionConflict", "None"]), Some(Fault::Contended));
        assert_eq!(reasons(&[]), None);
        assert!(reasons(&["None", "ThrottlingError"]).is_some_and(|fault| fault.may_pass() && !fault.may_have_landed()));
        assert!(reasons(&["None", "ValidationError"]).is_some_and(|fault| !fault.may_pass()));
    }

    #[test]
    fn only_a_write_without_an_answer_may_have_landed() {
        assert!(Fault::timed_out(Duration::from_secs(1)).may_have_landed());
        assert!(Fault::Other(Failure::service("InternalServerError", "", 500)).may_have_landed());
        assert!(!Fault::Other(Failure::service("ThrottlingException", "", 400)).may_have_landed());
        assert!(!Fault::Contended.may_have_landed());
        let under_way = of_failure(Failure::service("TransactionInProgressException", "", 400));
        assert!(under_way.may_have_landed() && under_way.may_pass());
    }

    #[test]
    fn a_fault_after_an_attempt_without_an_answer_leaves_it_open_whether_the_write_has_landed() {
        let unanswered = || Fault::timed_out(Duration::from_secs(1));
        let changed = Fault::Condition { item: 1 }.after_ambiguous(unanswered());
        assert!(changed.may_have_landed());
        assert_eq!(changed.condition(), Some(1));
        let why = "no answer within 1s; then the record has changed".to_owned();
        assert_eq!(changed.into_error("PutItem", "fleet"), LedgerError::Unavailable { call: "PutItem", why });
        let denied = of_failure(Failure::service("AccessDeniedException", "no", 400)).after_ambiguous(unanswered());
        assert_eq!(denied.code(), "AccessDeniedException");
        assert!(matches!(denied.into_error("PutItem", "fleet"), LedgerError::Denied { .. }));
    }

    #[test]
    fn a_table_of_another_shape_is_no_table() {
        let error = |code: &str, words: &str| of_failure(Failure::service(code, words, 400)).into_error("GetItem", "fleet");
        assert!(matches!(error("ResourceNotFoundException", "no"), LedgerError::NoTable { .. }));
        assert!(matches!(error("ValidationException", "The provided key element does not match the schema"), LedgerError::NoTable { .. }));
        assert!(matches!(error("AccessDeniedException", "no"), LedgerError::Denied { .. }));
        assert!(matches!(error("ValidationException", "Item size has exceeded"), LedgerError::Unavailable { .. }));
        assert_eq!(error("ConditionalCheckFailedException", ""), LedgerError::Conflict);
    }
}
