//! What the routes take beside a query: what paths name, and the precondition.

use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{Required, Type};
use utoipa::{IntoParams, PartialSchema};

use crate::api::etag::IfMatch;
use crate::api::extract::{BackendPath, RevisionPath, ServicePath};
use crate::model::{Endpoint, ServiceName};

fn segment<T: PartialSchema>(name: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(T::schema()))
        .build()
}

impl IntoParams for ServicePath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![segment::<ServiceName>("name", "The service")]
    }
}

impl IntoParams for BackendPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![
            segment::<ServiceName>("name", "The service"),
            segment::<Endpoint>(
                "address",
                "The backend's address and port, percent-encoded where it has to be",
            ),
        ]
    }
}

impl IntoParams for RevisionPath {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        vec![segment::<u64>("revision", "The revision's number")]
    }
}

impl IntoParams for IfMatch {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = utoipa::openapi::ObjectBuilder::new().schema_type(Type::String);
        let header = ParameterBuilder::new()
            .name("If-Match")
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some("The tag that what is changed must still have"))
            .schema(Some(text));
        vec![header.build()]
    }
}
