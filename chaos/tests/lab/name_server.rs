//! The authority's place in a lab without an agent.

use lifeboat_chaos::{Lab, Region};

/// A DNS server that says where the shop is: the authority's place while there is no agent.
pub(crate) async fn name_server(lab: &Lab) -> std::sync::Arc<std::sync::Mutex<Region>> {
    use hickory_proto::op::{Message, OpCode};
    use hickory_proto::rr::{RData, Record, rdata::A};
    let socket = tokio::net::UdpSocket::bind(lab.network().authority()).await.unwrap();
    let says = std::sync::Arc::new(std::sync::Mutex::new(Region::East));
    let hosts = Region::ALL.map(|region| (region, lab.network().host(region)));
    let place = says.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            let question = Message::from_vec(&buffer[..count]).unwrap();
            let mut answer = Message::response(question.metadata.id, OpCode::Query);
            answer.add_query(question.queries[0].clone());
            let region = *place.lock().unwrap();
            let host = hosts.iter().find(|(name, _)| *name == region).unwrap().1;
            let name = question.queries[0].name().clone();
            answer.add_answer(Record::from_rdata(name, 1, RData::A(A(host))));
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    says
}
