//! The rules on a real API server. Runs with SLIPWAY_E2E=1 and a KUBECONFIG; writes nothing (every request is a dry run),
//! but the CRD must be installed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

mod cases;

use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
    core::ApiResource,
};

#[test]
fn the_api_server_accepts_and_refuses_what_it_should() {
    if std::env::var_os("SLIPWAY_E2E").is_none() {
        println!("skipped: needs a cluster with the CRD; set SLIPWAY_E2E=1 and KUBECONFIG");
        return;
    }
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let client = Client::try_default().await.unwrap();
        let resource = ApiResource::erase::<slipway_crd::ImageBuild>(&());
        let api: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource);
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let mut wrong = Vec::new();
        for case in cases::all() {
            let object =
                DynamicObject::new("rule-case", &resource).data(serde_json::json!({"spec": case.spec}));
            match (case.refused, api.create(&dry_run, &object).await) {
                (None, Ok(_)) => {}
                (Some(part), Err(kube::Error::Api(status))) => {
                    if status.code != 422 || !status.message.contains(part) {
                        wrong.push(format!("{}: {part:?} is not in {}", case.name, status.message));
                    }
                }
                (None, Err(error)) => wrong.push(format!("{} {}: refused: {error}", case.name, case.spec)),
                (Some(_), Ok(_)) => wrong.push(format!("{} {}: accepted", case.name, case.spec)),
                (Some(_), Err(error)) => wrong.push(format!("{}: no answer: {error}", case.name)),
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}
