// Byte link to one client at a time over a TCP socket on 127.0.0.1; behaves like a serial cable that can be unplugged.
#pragma once

#include <arpa/inet.h>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vector>

class Link {
    static constexpr size_t CHUNK = 65536, LIMIT = 1 << 22;
    int listener_ = -1, client_ = -1;
    bool watch_stdin_;
    uint8_t in_[CHUNK];
    size_t in_at_ = 0, in_end_ = 0;
    std::vector<uint8_t> out_;
    size_t out_at_ = 0;

    void drop_client() {
        close(client_);
        client_ = -1;
        out_.clear();
        out_at_ = 0;
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
    uint64_t lost_bytes = 0; // a client that does not read loses bytes, as on a serial line

    explicit Link(bool watch_stdin) : watch_stdin_(watch_stdin) {}

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

    // Sends, receives and accepts what there is; waits up to `wait_ms` (-1: until something happens) for it.
    void service(int wait_ms) {
        if (sending())
            flush();
        pollfd polled[3];
        nfds_t count = 0;
        int connection = client_ >= 0 ? client_ : listener_;
        // A further client waits in the listener's queue until the present one leaves.
        polled[count++] = {connection, short(POLLIN | (sending() ? POLLOUT : 0)), 0};
        if (watch_stdin_)
            polled[count++] = {0, POLLIN, 0};
        if (poll(polled, count, wait_ms) <= 0)
            return;
        if (watch_stdin_ && polled[1].revents) {
            char ignored[64];
            if (read(0, ignored, sizeof ignored) <= 0)
                parent_gone = true;
        }
        if (!polled[0].revents)
            return;
        if (client_ < 0) {
            client_ = accept(listener_, nullptr, nullptr);
            if (client_ < 0)
                return;
            fcntl(client_, F_SETFL, O_NONBLOCK);
            int one = 1;
            setsockopt(client_, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
            return;
        }
        if (has_byte())
            return; // the device has not taken the last bytes yet
        ssize_t got = recv(client_, in_, CHUNK, 0);
        if (got > 0) {
            in_at_ = 0;
            in_end_ = size_t(got);
        } else if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) {
            drop_client();
        }
    }
};
