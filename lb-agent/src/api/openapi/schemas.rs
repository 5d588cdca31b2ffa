//! How values are described that are written as text.

use std::collections::BTreeSet;

use serde_json::json;
use utoipa::openapi::schema::{ArrayBuilder, OneOfBuilder};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};
use utoipa::{PartialSchema, ToSchema};

use crate::control::EffectiveWeight;
use crate::model::{
    Affinity, Checks, Damping, Endpoint, FlowLimit, HealthType, Lease, Load, PanicThreshold, Period, Prefix,
    ServiceName, SlowStart, SourcePool, Timestamp, Weight,
};

/// Values that are text with a form of their own.
macro_rules! text {
    ($($type:ident, $description:literal, $example:literal;)*) => {
        $(
            impl PartialSchema for $type {
                fn schema() -> RefOr<Schema> {
                    ObjectBuilder::new()
                        .schema_type(Type::String)
                        .description(Some($description))
                        .examples([json!($example)])
                        .into()
                }
            }

            impl ToSchema for $type {}
        )*
    };
}

text! {
    ServiceName, "1 to 63 of the characters A-Z a-z 0-9 . _ -", "web";
    Endpoint, "`ADDR:PORT`, or `[ADDR]:PORT` for IPv6", "10.0.0.100:80";
    Affinity, "`off`, or a time from 1s to 24h", "10m";
    Lease, "`off`, or a time from 1s to 1h", "10s";
    SlowStart, "`off`, or a time from 2s to 1h", "30s";
    Damping, "`off`, or a time from 4s to 1h", "2m";
    PanicThreshold, "`off`, or a percentage from 1% to 100%", "50%";
    Period, "A number with its unit: ms, s, m or h", "5m";
    FlowLimit, "`N/s[,burst=M]`, for sources also `[,prefix=L]`, or `none`", "1000/s,burst=2000";
    Prefix, "`ADDR/LENGTH`, or an address alone", "10.0.0.0/8";
    Timestamp, "RFC 3339, in UTC, to the second", "2026-11-23T18:00:00Z";
}

impl PartialSchema for Weight {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0)).maximum(Some(65_535)).into()
    }
}

impl ToSchema for Weight {}

impl PartialSchema for Load {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).into()
    }
}

impl ToSchema for Load {}

impl PartialSchema for EffectiveWeight {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0)).maximum(Some(65_535)).into()
    }
}

impl ToSchema for EffectiveWeight {}

/// Answered as an array of strings; taken as a string, a table, or an array of either.
impl PartialSchema for Checks {
    fn schema() -> RefOr<Schema> {
        let word = || ObjectBuilder::new().schema_type(Type::String).examples([json!("tcp,interval=2s")]);
        let table = || {
            let keys: BTreeSet<_> = HealthType::ALL.iter().flat_map(|kind| kind.options()).collect();
            let types = HealthType::ALL.iter().map(|kind| kind.name()).chain(["none"]);
            let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(types));
            let table =
                ObjectBuilder::new().schema_type(Type::Object).property("type", kind).required("type");
            keys.iter().fold(table, |table, key| table.property(**key, Schema::default()))
        };
        let either = OneOfBuilder::new().item(word()).item(table());
        let several = ArrayBuilder::new().items(either);
        OneOfBuilder::new().item(word()).item(table()).item(several).into()
    }
}

impl ToSchema for Checks {}

impl PartialSchema for SourcePool {
    fn schema() -> RefOr<Schema> {
        let address = ObjectBuilder::new().schema_type(Type::String).examples([json!("10.0.1.5")]);
        ArrayBuilder::new().items(address).description(Some("Addresses without ports")).into()
    }
}

impl ToSchema for SourcePool {}
