// Byte link to one client at a time over a TCP socket on 127.0.0.1; behaves like a serial cable that can be unplugged.
// A further client waits until the present one leaves; with greetings it is told so, and each is told when it is its turn.
#pragma once

#include <arpa/inet.h>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <string>
#include <sys/socket.h>
#include <unistd.h>
#include <utility>
#include <vector>

class Link {
    static constexpr size_t CHUNK = 65536, LIMIT = 1 << 22, MOST_WAITING = 16;
    int listener_ = -1, client_ = -1;
    bool watch_stdin_;
    std::vector<uint8_t> greeting_, wait_;
    struct Waiting {
        int client;
        bool told;
    };
    std::deque<Waiting> waiting_; // with greetings only; otherwise they wait in the listener's queue
    bool greeted_ = false;        // whether the present client has been told
    uint8_t in_[CHUNK];
    size_t in_at_ = 0, in_end_ = 0;
    std::vector<uint8_t> out_;
    size_t out_at_ = 0;

    void drop_client() {
        close(client_);
        client_ = -1;
        out_.clear();
        out_at_ = 0;
        if (!waiting_.empty()) {
            client_ = waiting_.front().client;
            waiting_.pop_front();
        }
        greeted_ = false;
    }

    int accepted() {
        int client = accept(listener_, nullptr, nullptr);
        if (client < 0)
            return client;
        fcntl(client, F_SETFL, O_NONBLOCK);
        int one = 1;
        setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        return client;
    }

    void flush() {
        while (client_ >= 0 && out_at_ < out_.size()) {
            ssize_t sent = ::send(client_, out_.data() + out_at_, out_.size() - out_at_, 0);
            if (sent > 0)
                out_at_ += size_t(sent);
            else if (sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
                return;
            else
                drop_client();
        }
        out_.clear();
        out_at_ = 0;
    }

  public:
    bool parent_gone = false;
    std::string heard;       // on standard input, not yet read
    uint64_t lost_bytes = 0; // a client that does not read loses bytes, as on a serial line

    // Bytes for a client whose turn has come, and for one that waits for its turn; empty: none are told anything.
    Link(bool watch_stdin, std::vector<uint8_t> greeting, std::vector<uint8_t> wait)
        : watch_stdin_(watch_stdin), greeting_(std::move(greeting)), wait_(std::move(wait)) {}

    // Opens the port (0: any free one); the number of the port, or -1.
    int open(int port) {
        listener_ = socket(AF_INET, SOCK_STREAM, 0);
        int one = 1;
        setsockopt(listener_, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(uint16_t(port));
        address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        socklen_t size = sizeof address;
        if (listener_ < 0 || bind(listener_, reinterpret_cast<sockaddr *>(&address), size) || listen(listener_, 4) ||
            getsockname(listener_, reinterpret_cast<sockaddr *>(&address), &size))
            return -1;
        fcntl(listener_, F_SETFL, O_NONBLOCK);
        return ntohs(address.sin_port);
    }

    bool has_byte() const { return in_at_ < in_end_; }
    uint8_t byte() const { return in_[in_at_]; }
    void take() { in_at_++; }
    bool sending() const { return out_at_ < out_.size(); }

    void put(uint8_t value) {
        if (client_ < 0)
            return;
        if (out_.size() >= LIMIT)
            lost_bytes++;
        else
            out_.push_back(value);
    }

    // Reads standard input: its lines are for the harness, its end is that of the parent.
    void hear() {
        char text[256];
        ssize_t got = read(0, text, sizeof text);
        if (got <= 0)
            parent_gone = true;
        else
            heard.append(text, size_t(got));
    }

    // Sends, receives and accepts what there is; waits up to `wait_ms` (-1: until something happens) for it.
    void service(int wait_ms) {
        if (sending())
            flush();
        // A negative descriptor is left out.
        const bool admits = client_ >= 0 && !wait_.empty() && waiting_.size() < MOST_WAITING;
        pollfd polled[3 + MOST_WAITING] = {{client_ >= 0 ? client_ : listener_, short(POLLIN | (sending() ? POLLOUT : 0)), 0},
                                           {watch_stdin_ ? 0 : -1, POLLIN, 0},
                                           {admits ? listener_ : -1, POLLIN, 0}};
        nfds_t count = 3;
        for (const Waiting &one : waiting_)
            polled[count++] = {one.told ? -1 : one.client, POLLIN, 0};
        if (poll(polled, count, wait_ms) <= 0)
            return;
        if (polled[1].revents)
            hear();
        // Clients are told something once they have sent something: until then some drop what comes.
        for (nfds_t k = 3; k < count; k++)
            if (polled[k].revents) {
                waiting_[k - 3].told = true;
                (void)!::send(waiting_[k - 3].client, wait_.data(), wait_.size(), 0); // one that has left shows later
            }
        if (polled[2].revents) {
            int client = accepted();
            if (client >= 0)
                waiting_.push_back({client, false});
        }
        if (!polled[0].revents)
            return;
        if (client_ < 0) {
            client_ = accepted();
            greeted_ = false;
            return;
        }
        if (has_byte())
            return; // the device has not taken the last bytes yet
        ssize_t got = recv(client_, in_, CHUNK, 0);
        if (got > 0) {
            in_at_ = 0;
            in_end_ = size_t(got);
            if (!greeted_)
                out_.insert(out_.end(), greeting_.begin(), greeting_.end());
            greeted_ = true;
        } else if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            drop_client();
        }
    }
};
