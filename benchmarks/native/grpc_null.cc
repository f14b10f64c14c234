// An ext_proc server in C++ gRPC that decides nothing: a completion queue, one thread.
//
//     grpc_null PORT ANSWERS
//
// ANSWERS as for raw_null.c. A stream in observability_mode gets no answer. The service ends its
// streams as soon as nothing can follow that matters, and so does this server.
#include <grpcpp/grpcpp.h>

#include <cstdint>
#include <fstream>
#include <iostream>
#include <map>

#include "envoy/service/ext_proc/v3/external_processor.grpc.pb.h"

using envoy::service::ext_proc::v3::ExternalProcessor;
using envoy::service::ext_proc::v3::ProcessingRequest;
using envoy::service::ext_proc::v3::ProcessingResponse;

static ExternalProcessor::AsyncService service;
static std::unique_ptr<grpc::ServerCompletionQueue> queue;
static std::map<int, ProcessingResponse> answers;  // by the number of the request's field

class Call {
 public:
  Call() : stream_(&context_) { service.RequestProcess(&context_, &stream_, queue.get(), queue.get(), this); }

  void Proceed(bool ok) {
    if (step_ == Step::kEnded || (step_ == Step::kWaiting && !ok)) {
      delete this;
    } else if (!ok) {
      End();
    } else if (step_ == Step::kWaiting) {
      new Call();
      Read();
    } else if (step_ == Step::kWritten) {
      Read();
    } else {
      Answer();
    }
  }

 private:
  enum class Step { kWaiting, kRead, kWritten, kEnded };

  void Read() {
    step_ = Step::kRead;
    stream_.Read(&request_, this);
  }

  void End() {
    step_ = Step::kEnded;
    stream_.Finish(grpc::Status::OK, this);
  }

  void Answer() {
    observing_ |= request_.observability_mode();
    const auto kind = request_.request_case();
    const bool last_of_answer =
        kind == ProcessingRequest::kResponseTrailers ||
        (kind == ProcessingRequest::kResponseBody && request_.response_body().end_of_stream()) ||
        (kind == ProcessingRequest::kResponseHeaders && request_.response_headers().end_of_stream());
    if (observing_) return last_of_answer ? End() : Read();
    const ProcessingResponse& answer = answers[kind];
    if (kind == ProcessingRequest::kRequestBody) {
      step_ = Step::kEnded;
      return stream_.WriteAndFinish(answer, grpc::WriteOptions(), grpc::Status::OK, this);
    }
    step_ = Step::kWritten;
    stream_.Write(answer, this);
  }

  grpc::ServerContext context_;
  grpc::ServerAsyncReaderWriter<ProcessingResponse, ProcessingRequest> stream_;
  ProcessingRequest request_;
  Step step_ = Step::kWaiting;
  bool observing_ = false;
};

static void ReadAnswers(const char* path) {
  std::ifstream file(path, std::ios::binary);
  uint8_t head[5];
  while (file.read(reinterpret_cast<char*>(head), 5)) {
    std::string data(head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4], '\0');
    file.read(data.data(), data.size());
    answers[head[0] >> 3].ParseFromString(data);
  }
}

int main(int count, char** arguments) {
  if (count != 3) return 2;
  ReadAnswers(arguments[2]);
  grpc::ServerBuilder builder;
  builder.AddListeningPort(std::string("127.0.0.1:") + arguments[1], grpc::InsecureServerCredentials());
  builder.SetMaxReceiveMessageSize(-1);
  builder.RegisterService(&service);
  queue = builder.AddCompletionQueue();
  auto server = builder.BuildAndStart();
  if (!server) return 1;
  for (int i = 0; i < 8; i++) new Call();
  void* call;
  bool ok;
  while (queue->Next(&call, &ok)) static_cast<Call*>(call)->Proceed(ok);
}
