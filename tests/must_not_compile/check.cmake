# Compiles one file of this folder, which must fail, with the words after "// expect-error: " in the
# compiler's messages: so that a case with a broken include is not mistaken for one that is refused
# for the right reason.
#
#   cmake -DCOMPILER=g++ -DSOURCE=case.cc -DROOT=. -P check.cmake
file(STRINGS ${SOURCE} expectation REGEX "^// expect-error: ")
string(REGEX REPLACE "^// expect-error: " "" expectation "${expectation}")
if(expectation STREQUAL "")
    message(FATAL_ERROR "${SOURCE}: has no line \"// expect-error: words of the message\"")
endif()
set(ENV{LC_ALL} C)
execute_process(
    COMMAND ${COMPILER} -std=c++20 -fsyntax-only -Wall -Wextra -Werror -I${ROOT} ${SOURCE}
    RESULT_VARIABLE code ERROR_VARIABLE messages)
if(code EQUAL 0)
    message(FATAL_ERROR "${SOURCE} compiles, and must not")
endif()
string(FIND "${messages}" "${expectation}" found)
if(found EQUAL -1)
    message(FATAL_ERROR "${SOURCE} fails for another reason than \"${expectation}\":\n${messages}")
endif()
if(messages MATCHES "fatal error")
    message(FATAL_ERROR "${SOURCE} does not find what it includes:\n${messages}")
endif()
