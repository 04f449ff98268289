use std::time::Duration;

use serde_json::value::RawValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::transport::{memory, websocket};

const INTERVAL: Duration = Duration::from_secs(10);

struct Deaf;

impl Service for Deaf {
    fn request(self: &Arc<Self>, _: Call, responder: Responder) {
        responder.ok(&());
    }

    fn notification(self: &Arc<Self>, _: &str, _: Option<&RawValue>) -> Result<(), Violation> {
        Ok(())
    }

    fn closed(self: &Arc<Self>, _: &CloseReason) {}
}

fn run(transport: Transport) -> (Sender, tokio::task::JoinHandle<CloseReason>) {
    let (sender, connection) = Connection::new(transport, Limits::default());
    (sender, tokio::spawn(connection.run(Arc::new(Deaf))))
}

/// A server over a pipe of so many bytes, and the raw other end.
fn websocket_over(capacity: usize) -> (Sender, tokio::task::JoinHandle<CloseReason>, DuplexStream) {
    let (near, far) = tokio::io::duplex(capacity);
    let (sender, end) = run(websocket::transport(near, &[], Side::Server, "a test".to_owned()));
    (sender, end, far)
}

#[tokio::test(start_paused = true)]
async fn peers_that_say_nothing_but_live_stay_connected() {
    let (client, server, _link) = memory();
    let ((client, _), (_server, end)) = (run(client), run(server));
    tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
    assert!(!end.is_finished());
    client.request("anything", &()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_lost_its_power_is_gone_after_two_missed_pings() {
    let (client, server, link) = memory();
    let ((client, _), (_server, end)) = (run(client), run(server));
    client.request("anything", &()).await.unwrap();
    let begin = Instant::now();
    link.fall_silent();
    let waiting = tokio::spawn(async move { client.request("anything", &()).await });
    assert_eq!(end.await.unwrap(), CloseReason::Silent { silence: 2 * INTERVAL });
    assert_eq!(begin.elapsed().as_secs(), 30, "the first interval had a sign of life, the next two had none");
    let error = waiting.await.unwrap().unwrap_err();
    assert!(error.to_string().contains("no sign of life"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_half_open_socket_is_noticed_while_data_is_stuck_in_it() {
    let (sender, end, _far) = websocket_over(4096);
    let begin = Instant::now();
    let flood =
        tokio::spawn(async move { while sender.data(Frame::Text("x".repeat(10_000))).await.is_ok() {} });
    assert_eq!(end.await.unwrap(), CloseReason::Silent { silence: 2 * INTERVAL });
    assert!(begin.elapsed() <= 3 * INTERVAL, "{:?}", begin.elapsed());
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_whose_pongs_are_behind_megabytes_lives() {
    let (sender, end, mut far) = websocket_over(4096);
    let flood =
        tokio::spawn(async move { while sender.data(Frame::Text("x".repeat(10_000))).await.is_ok() {} });
    // 4 KiB in nine seconds, for ten minutes, and never a word.
    let mut buffer = vec![0; 4096];
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        far.read_exact(&mut buffer).await.unwrap();
    }
    assert!(!end.is_finished());
    drop(far);
    end.await.unwrap();
    flood.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_large_message_on_a_slow_link_is_a_sign_of_life() {
    let (_sender, end, mut far) = websocket_over(4096);
    // A masked text frame of 1 MiB, of which 1 KiB comes in nine seconds.
    far.write_all(&[0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0]).await.unwrap();
    for _ in 0..60 {
        tokio::time::sleep(Duration::from_secs(9)).await;
        far.write_all(&[b'x'; 1024]).await.unwrap();
    }
    assert!(!end.is_finished());
}

#[tokio::test(start_paused = true)]
async fn a_ping_is_answered_with_its_payload_even_among_data() {
    let (_sender, _end, mut far) = websocket_over(4096);
    far.write_all(&[0x89, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g']).await.unwrap();
    let mut pong = [0; 6];
    far.read_exact(&mut pong).await.unwrap();
    assert_eq!(pong, *b"\x8a\x04ping");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_closed_says_why_and_gives_a_peer_that_does_not_read_two_seconds() {
    let (sender, end, mut far) = websocket_over(64);
    sender.notify("queued", &()).unwrap();
    sender.close(CloseReason::local("stopping"));
    assert!(sender.notify("late", &()).is_err());
    let mut written = Vec::new();
    // The rest is never written: nobody reads it.
    far.read_buf(&mut written).await.unwrap();
    far.read_buf(&mut written).await.unwrap();
    assert_eq!(written, b"\x81\x21{\"method\":\"queued\",\"params\":null}\x88\x0a\x03\xe9stopping");
    assert_eq!(end.await.unwrap(), CloseReason::local("stopping"));

    let (sender, end, _far) = websocket_over(64);
    sender.notify("stuck", &"x".repeat(1000)).unwrap();
    let begin = Instant::now();
    sender.close(CloseReason::local("stopping"));
    assert_eq!(end.await.unwrap(), CloseReason::local("stopping"));
    assert_eq!(begin.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn messages_of_one_turn_share_one_write() {
    let (sender, _end, mut far) = websocket_over(1 << 16);
    for event in ["response", "exited", "closed"] {
        sender.notify(event, &()).unwrap();
    }
    let mut written = Vec::with_capacity(1 << 16);
    far.read_buf(&mut written).await.unwrap();
    let text = String::from_utf8_lossy(&written);
    assert!(text.contains("response") && text.contains("closed"), "{text}");
}

/// Answers with its own parameters, and counts binary frames.
struct Echo(tokio::sync::mpsc::UnboundedSender<usize>);

impl Service for Echo {
    fn request(self: &Arc<Self>, call: Call, responder: Responder) {
        tokio::spawn(async move { responder.data_ok(&call.params).await });
    }

    fn notification(self: &Arc<Self>, _: &str, _: Option<&RawValue>) -> Result<(), Violation> {
        Ok(())
    }

    fn binary(self: &Arc<Self>, frame: &[u8]) -> Result<(), Violation> {
        // The test has ended.
        let _ = self.0.send(frame.len());
        Ok(())
    }

    fn closed(self: &Arc<Self>, _: &CloseReason) {}
}

#[tokio::test]
async fn packed_messages_are_what_they_were_where_that_was_agreed_on() {
    let (heard, mut frames) = tokio::sync::mpsc::unbounded_channel();
    let (client, server, _link) = memory();
    let (client, running) = Connection::new(client, Limits::default());
    tokio::spawn(running.run(Arc::new(Echo(heard.clone()))));
    let (server, running) = Connection::new(server, Limits::default());
    let end = tokio::spawn(running.run(Arc::new(Echo(heard))));
    let large = "x".repeat(2 << 20);
    for agreed in [false, true] {
        if agreed {
            for side in [&client, &server] {
                side.take_packed();
                side.send_packed();
            }
        }
        let echoed = client.data_request("echo", &large).await.unwrap();
        assert!(echoed.get().len() == large.len() + 2 && echoed.get()[1..].starts_with(&large));
        server.data(Frame::Binary(vec![1; 100_000])).await.unwrap();
        assert_eq!(frames.recv().await, Some(100_000));
    }
    // What would fill the memory is not read to its end.
    let bomb = Packing::default();
    bomb.send();
    client.data(bomb.pack(Frame::Text("y".repeat(64 << 20)))).await.unwrap();
    let error = client.closed().await.to_string();
    assert!(error.contains("larger than 16777216 bytes"), "{error}");
    end.await.unwrap();
}
