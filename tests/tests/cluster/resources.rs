//! `components` and `k8s`, applied as they are, and what the cluster makes of them.

use serde_json::{Value, json};
use task_tests::criteria::Criterion;
use task_tests::process::cluster::Kubectl;

/// Where the components expect Redis.
const REDIS: &str = "redis-master.default.svc.cluster.local:6379";

/// Applies them and looks at each of them.
pub(crate) async fn check(kubectl: &Kubectl, criterion: &mut Criterion) {
    let applied = async {
        let folders = ["apply", "-f", "components/", "-f", "k8s/"];
        let applied = kubectl.try_run(&folders).await?;
        Ok(applied.trim().replace('\n', ", "))
    };
    let what = "kubectl apply -f components/ -f k8s/";
    criterion.check(what, applied).await;
    criterion.check("components", components(kubectl)).await;
    let what = "resiliency and subscription";
    criterion.check(what, events(kubectl)).await;
    criterion.check("Deployment", deployment(kubectl)).await;
    criterion.check("Service", service(kubectl)).await;
}

async fn components(kubectl: &Kubectl) -> Result<String, String> {
    let all = kubectl.json(&["get", "components.dapr.io"]).await;
    let all = all["items"].as_array().into_iter().flatten();
    let found: serde_json::Map<String, Value> = all
        .map(|one| {
            let name = one["metadata"]["name"].as_str().unwrap_or_default();
            (name.to_owned(), one["spec"].clone())
        })
        .collect();
    let component = |kind: &str, metadata: &[(&str, &str)]| {
        let metadata = metadata.iter();
        let metadata = metadata.map(|(name, value)| json!({"name": name, "value": value}));
        json!({"type": kind, "version": "v1", "metadata": metadata.collect::<Vec<_>>()})
    };
    let host = ("redisHost", REDIS);
    let workers = [
        host,
        ("concurrency", "64"),
        ("processingTimeout", "15000"),
        ("redeliverInterval", "5000"),
    ];
    let state = [host, ("redisPassword", ""), ("actorStateStore", "true")];
    let expected = json!({
        "kubernetes-secrets": component("secretstores.kubernetes", &[]),
        "pubsub": component("pubsub.redis", &workers),
        "statestore": component("state.redis", &state),
    });
    let names = found.keys().cloned().collect::<Vec<_>>().join(", ");
    same("components", &Value::Object(found), &expected)?;
    Ok(names)
}

async fn events(kubectl: &Kubectl) -> Result<String, String> {
    let resiliency = kubectl.json(&["get", "resiliencies.dapr.io"]).await;
    let spec = &resiliency["items"][0]["spec"];
    // No retries and no breakers, or refusals would be repeated and counted.
    let targets = json!({"apps": {"notification-service": {"timeout": "notification"}}});
    same("resiliency", &spec["targets"], &targets)?;

    let all = kubectl.json(&["get", "subscriptions.dapr.io"]).await;
    let subscription = &all["items"][0]["spec"];
    // No dead letters: without retries the first failure would make one.
    let expected = json!({
        "pubsubname": "pubsub",
        "topic": "task-events",
        "routes": {"default": "/events/task-events"},
    });
    same("subscription", subscription, &expected)?;
    Ok(format!("{targets}, {subscription}"))
}

async fn deployment(kubectl: &Kubectl) -> Result<String, String> {
    let deployment = kubectl.json(&["get", "deployment", "task-api"]).await;
    let template = &deployment["spec"]["template"];
    let annotations = &template["metadata"]["annotations"];
    let expected = json!({
        "dapr.io/enabled": "true",
        "dapr.io/app-id": "task-api",
        "dapr.io/app-port": "8000",
        "dapr.io/enable-api-logging": "true",
    });
    same("annotations", annotations, &expected)?;
    let labels = &template["metadata"]["labels"];
    same("labels", labels, &json!({"app": "task-api"}))?;
    same("replicas", &deployment["spec"]["replicas"], &json!(2))?;
    let container = &template["spec"]["containers"][0];
    same("image", &container["image"], &json!("task-api:latest"))?;
    let resources = json!({
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "500m", "memory": "256Mi"},
    });
    same("resources", &container["resources"], &resources)?;
    for (field, delay, period) in [("readinessProbe", 5, 10), ("livenessProbe", 10, 30)] {
        let probe = &container[field];
        let found = json!([probe["httpGet"]["path"], probe["httpGet"]["port"]]);
        same(field, &found, &json!(["/health", 8000]))?;
        let found = json!([probe["initialDelaySeconds"], probe["periodSeconds"]]);
        same(field, &found, &json!([delay, period]))?;
    }
    Ok(annotations.to_string())
}

async fn service(kubectl: &Kubectl) -> Result<String, String> {
    let service = kubectl.json(&["get", "service", "task-api"]).await;
    let spec = &service["spec"];
    let port = &spec["ports"][0];
    let found = json!([
        spec["type"],
        spec["selector"],
        port["port"],
        port["targetPort"]
    ]);
    let expected = json!(["ClusterIP", {"app": "task-api"}, 80, 8000]);
    same("service", &found, &expected)?;
    Ok(found.to_string())
}

/// Compares what the API server answers with what the specification says.
fn same(what: &str, found: &Value, expected: &Value) -> Result<(), String> {
    if found == expected {
        return Ok(());
    }
    Err(format!("{what}: {found}, expected {expected}"))
}
