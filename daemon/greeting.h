// The two messages of the handshake: whether a Hello is one of ours, and a Welcome on its way.
//
// Who:   the server (daemon/server.h).
// Waits: nobody: a Welcome is our first and only message, and fits into the socket's buffer.
#pragma once

#include <string_view>
#include <vector>

#include "engine/clients.h"
#include "shm/error.h"
#include "shm/layout.h"

namespace bidstore {

// kOk, or why it is refused, whoever says it.
Status check_hello(const Hello& hello);

Welcome make_welcome(Error error, const SessionId& session, std::string_view message);
// With descriptors, three at most, or without. False: errno says why.
bool send_welcome(int socket, const Welcome& welcome, const std::vector<int>& descriptors);

}  // namespace bidstore
