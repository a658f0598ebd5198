/// The methods of `mcpmesh.push.v1.Push`, for the build scripts of its client and its server. Included by both.
fn push_service() -> tonic_build::manual::Service {
    use tonic_build::manual::{Method, Service};
    let method = |name: &str, route: &str, input: &str, output: &str| {
        Method::builder()
            .name(name)
            .route_name(route)
            .input_type(format!("::mcpmesh_ir::push::{input}"))
            .output_type(format!("::mcpmesh_ir::push::{output}"))
            .codec_path("::tonic_prost::ProstCodec")
    };
    Service::builder()
        .name("Push")
        .package("mcpmesh.push.v1")
        .comment("Differences of configuration to proxies, certificates for them, and their reports.")
        .method(
            method("subscribe", "Subscribe", "FromProxy", "ToProxy").client_streaming().server_streaming().build(),
        )
        .method(method("sign", "Sign", "SignRequest", "SignResponse").build())
        .method(method("report", "Report", "Report", "Reported").build())
        .build()
}
