//! A broker that asks who we are, by TLS.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adapters_direct::ClientCertificate;
use adapters_direct::kafka::{KafkaConfig, KafkaEventBus, Mechanism, Sasl, Transport};
use task_core::ports::{Answer, ErrorKind, EventBus, Secret};
use task_tests::process::KafkaBroker;
use task_tests::process::kafka::{Entry, KafkaOptions, Login};

use super::{event, subscription, telling};

const PASSWORD: &str = "hunter2";

fn config(broker: &KafkaBroker, mechanism: Mechanism, password: &str) -> KafkaConfig {
    let mut config = KafkaConfig::new(broker.secured().bootstrap());
    config.transport = Transport::Tls {
        ca_file: Some(broker.secured().certificates().authority()),
        client_certificate: None,
    };
    config.sasl = Some(Sasl {
        mechanism,
        user: "tasks".to_owned(),
        password: Secret::new(password).unwrap(),
    });
    config
}

#[tokio::test]
async fn a_password_opens_an_encrypted_port_and_a_wrong_one_is_denied_unseen() {
    let broker = KafkaBroker::start_with(KafkaOptions {
        secured: Some(Entry::Password(Login {
            user: "tasks",
            password: PASSWORD,
        })),
        ..KafkaOptions::default()
    })
    .await;
    for topic in ["t", "t.dead"] {
        broker.create_topic(topic, 1).await;
    }
    let mechanisms = [
        Mechanism::Plain,
        Mechanism::ScramSha256,
        Mechanism::ScramSha512,
    ];
    for mechanism in mechanisms {
        let name = mechanism.as_str();
        let bus = KafkaEventBus::open(config(&broker, mechanism, PASSWORD)).unwrap();
        let (handler, mut heard) = telling(|_| Answer::Ack);
        bus.publish(&event("t", "k", name)).await.unwrap();
        let running = bus.subscribe(subscription("t", name), handler).await;
        while heard.texts(1).await != [name] {}
        running.unwrap().stop().await;
    }
    let mut untrusting = config(&broker, Mechanism::Plain, PASSWORD);
    untrusting.transport = Transport::Tls {
        ca_file: None,
        client_certificate: None,
    };
    let wrong = mechanisms.map(|mechanism| config(&broker, mechanism, "hunter3"));
    let (handler, _heard) = telling(|_| Answer::Ack);
    for refused in wrong.into_iter().chain([untrusting]) {
        let key = match refused.transport {
            Transport::Tls { ca_file: None, .. } => "transport.ca_file",
            Transport::Tls { .. } | Transport::Plaintext => "check sasl.user, sasl.password and",
        };
        let bus = KafkaEventBus::open(refused).unwrap();
        let handler = Arc::clone(&handler);
        let began = Instant::now();
        for result in [
            bus.publish(&event("t", "k", "{}")).await,
            bus.check().await,
            bus.subscribe(subscription("t", "g"), handler)
                .await
                .map(drop),
        ] {
            let error = result.expect_err("we are nobody to the broker");
            assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
            assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
            assert!(error.to_string().contains(key), "{error}");
        }
        // The limit of one request is 10 s.
        let took = began.elapsed();
        assert!(
            took < Duration::from_secs(15),
            "three times refused: {took:?}"
        );
    }
}

#[tokio::test]
async fn a_certificate_opens_a_port_that_asks_for_one_and_nobody_gets_in_without() {
    let broker = KafkaBroker::start_with(KafkaOptions {
        secured: Some(Entry::Certificate),
        ..KafkaOptions::default()
    })
    .await;
    for topic in ["t", "t.dead"] {
        broker.create_topic(topic, 1).await;
    }
    let certificates = broker.secured().certificates();
    let showing = |client_certificate| {
        let mut config = KafkaConfig::new(broker.secured().bootstrap());
        config.transport = Transport::Tls {
            ca_file: Some(certificates.authority()),
            client_certificate,
        };
        config
    };
    let ours = ClientCertificate {
        certificate: certificates.client_certificate(),
        key: certificates.client_key(),
    };
    let bus = KafkaEventBus::open(showing(Some(ours.clone()))).unwrap();
    let (handler, mut heard) = telling(|_| Answer::Ack);
    bus.publish(&event("t", "k", "in")).await.unwrap();
    let running = bus.subscribe(subscription("t", "g"), handler).await;
    assert_eq!(heard.texts(1).await, ["in"]);
    running.unwrap().stop().await;

    let bus = KafkaEventBus::open(showing(None)).unwrap();
    let error = bus.check().await.expect_err("nobody gets in without");
    assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
    let advice = "transport.client_certificate";
    assert!(error.to_string().contains(advice), "{error}");

    let of_others = Some(ClientCertificate {
        key: certificates.server_key(),
        ..ours
    });
    let error = KafkaEventBus::open(showing(of_others)).expect_err("the key of another");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}
