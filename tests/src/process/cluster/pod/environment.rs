//! The variables that a kubelet sets in a container.

use serde_json::Value;

use super::name_of;

/// What a container's resource says, as `NAME=VALUE`.
pub(super) fn of_container(container: &Value, pod: &Value, address: &str) -> Vec<String> {
    let variables = container["env"].as_array().into_iter().flatten();
    let variables = variables.map(|variable| {
        let name = variable["name"].as_str().expect("a variable has a name");
        let field = variable["valueFrom"]["fieldRef"]["fieldPath"].as_str();
        let value = match field {
            None => variable["value"].as_str().unwrap_or_default(),
            Some("metadata.name") => name_of(pod),
            Some("metadata.namespace") => "default",
            Some("status.podIP") => address,
            Some(other) => panic!("{name} is of {other}, which no test has needed yet"),
        };
        format!("{name}={value}")
    });
    let own = [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        format!("HOSTNAME={}", name_of(pod)),
    ];
    own.into_iter().chain(variables).collect()
}

/// The services of the namespace: `TASK_API_SERVICE_HOST=ADDRESS` and its like.
pub(super) fn of_services(services: &Value) -> Vec<String> {
    let services = services["items"].as_array().into_iter().flatten();
    services.flat_map(of_service).collect()
}

fn of_service(service: &Value) -> Vec<String> {
    let host = service["spec"]["clusterIP"].as_str().unwrap_or("None");
    let ports = service["spec"]["ports"].as_array();
    let Some(ports) = ports.filter(|_| host != "None") else {
        return Vec::new();
    };
    let prefix = name_of(service).to_uppercase().replace('-', "_");
    let mut variables = vec![format!("{prefix}_SERVICE_HOST={host}")];
    for (position, port) in ports.iter().enumerate() {
        let number = &port["port"];
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let url = format!("{}://{host}:{number}", protocol.to_lowercase());
        if position == 0 {
            variables.push(format!("{prefix}_SERVICE_PORT={number}"));
            variables.push(format!("{prefix}_PORT={url}"));
        }
        if let Some(name) = port["name"].as_str() {
            let name = name.to_uppercase().replace('-', "_");
            variables.push(format!("{prefix}_SERVICE_PORT_{name}={number}"));
        }
        let link = format!("{prefix}_PORT_{number}_{protocol}");
        variables.push(format!("{link}={url}"));
        variables.push(format!("{link}_PROTO={}", protocol.to_lowercase()));
        variables.push(format!("{link}_PORT={number}"));
        variables.push(format!("{link}_ADDR={host}"));
    }
    variables
}
