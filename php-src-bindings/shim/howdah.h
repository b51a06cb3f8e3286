/* The whole of what Rust sees of PHP. See src/lib.rs for the two rules behind it. */
#ifndef HOWDAH_H
#define HOWDAH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What PHP calls in Rust. Every one is a leaf: it does not unwind and does not call PHP.
 * `context` is the `context` of the request that runs on the calling thread. */
typedef struct howdah_callbacks {
	/* Takes the next bytes of the answer, headers included. False: nobody reads them any more. */
	bool (*write)(void *context, const char *data, size_t length);
	/* Sends on what was written so far. False: nobody reads it any more. */
	bool (*flush)(void *context);
	/* Fills `buffer` with up to `length` bytes of the request body, which was complete before the request
	 * began. 0: the body has ended. -1: the rest can't be read from the temporary file that holds it. */
	ptrdiff_t (*read_body)(void *context, char *buffer, size_t length);
	/* fastcgi_finish_request(): ends the answer; the script goes on. False: it had ended before. */
	bool (*finish)(void *context);
	/* The script could not be opened, for the reason `error` (as in errno; 0: not known). Returns the
	 * answer's body, which ends in NUL and lives as long as the request, and sets its `status`. */
	const char *(*not_opened)(void *context, int error, int *status);
	/* A message for the error log, and for the client's STDERR stream where `to_client`.
	 * `context` is null outside of a request. */
	void (*log)(void *context, const char *message, size_t length, bool to_client);
} howdah_callbacks;

/* An INI setting of the pool. Strings end in NUL and live until howdah_engine_start returns. */
typedef struct howdah_ini {
	const char *name;
	const char *value;
	/* php_admin_value and php_admin_flag: scripts cannot change it. */
	bool admin;
} howdah_ini;

/* Strings end in NUL and live as long as the process. */
typedef struct howdah_engine_config {
	/* -c: a php.ini or the directory of one; null for the built-in places. */
	const char *ini_path;
	/* -n: read no php.ini. */
	bool ignore_ini;
	/* INI text read after every file (-d, and the pool's settings), or null. */
	const char *ini_entries;
	/* The program's own path, for PHP_BINARY. */
	const char *executable;
	const howdah_ini *pool_ini;
	size_t pool_ini_count;
	howdah_callbacks callbacks;
} howdah_engine_config;

/* What INI files said that Rust must know. */
typedef struct howdah_settings {
	bool fix_pathinfo;
	bool discard_path;
	/* `doc_root`, or null. Lives until howdah_engine_stop. */
	const char *doc_root;
	/* opcache is on, and this PHP is thread-safe and older than 8.4: opcache's restarts and its JIT are kept
	 * off, as threads do not survive them. */
	bool opcache_restricted;
	/* php.ini and the list of scanned files, or null. Live until howdah_engine_stop. */
	const char *ini_file;
	const char *ini_scanned;
} howdah_settings;

/* Starts PHP in this process, once. Call it on the thread that will call howdah_engine_stop.
 * False: PHP said why on standard error. */
bool howdah_engine_start(const howdah_engine_config *config);
/* The settings after start-up. */
howdah_settings howdah_engine_settings(void);
/* Shuts PHP down. Every interpreter must have ended. Not to be followed by a new start. */
void howdah_engine_stop(void);
/* Descriptors that a child forked by a script (pcntl_fork) must not keep: up to 64 are closed
 * in it. Call it before the first request, in the process that runs it: whoever forks after the call counts
 * as a script. */
void howdah_close_in_children(const int *descriptors, size_t count);

/* Paths that PHP's command line was configured with; where distributions build each SAPI by itself (as
 * Debian does), those of libphp are not in the headers. They live as long as the process. */
typedef struct howdah_paths {
	/* --prefix, --sysconfdir, --localstatedir */
	const char *prefix;
	const char *sysconfdir;
	const char *localstatedir;
} howdah_paths;

/* May be called without an engine. */
howdah_paths howdah_php_paths(void);

/* Write what `-i` and `-m` show to standard output. The engine must have started, and the calling
 * thread must be the one that started it. False: PHP could not. */
bool howdah_print_info(void);
bool howdah_print_modules(void);

/* Makes the calling thread an interpreter. On ordinary (NTS) PHP only one thread may be one at
 * any time; there max_execution_time is a SIGPROF to the process, which every other thread must block.
 * False: the thread cannot be one (out of memory). */
bool howdah_interpreter_start(void);
/* Frees what the calling thread holds of PHP. After HOWDAH_BROKEN nothing of it can be freed: it is
 * left alone. */
void howdah_interpreter_stop(void);

/* An interpreter as other threads see it. */
typedef struct howdah_interpreter howdah_interpreter;

/* Why another thread ends a request. */
typedef enum howdah_ending {
	HOWDAH_GO_ON = 0,
	/* It took too long (request_terminate_timeout): a fatal error, which can't be caught. */
	HOWDAH_TIMED_OUT = 1,
	/* The client went away: what PHP does when it finds that out by itself, so ignore_user_abort holds. */
	HOWDAH_ABORTED = 2,
} howdah_ending;

/* The calling thread's interpreter, which lives until howdah_interpreter_stop; null if it is none. */
howdah_interpreter *howdah_interpreter_self(void);
/* The number of the interpreter's next request; they count from 1. Ask between requests, on the
 * interpreter's thread. */
uint64_t howdah_interpreter_next(const howdah_interpreter *interpreter);
/* Ends the interpreter's request of this number, from any thread: as soon as PHP comes to its next loop
 * or call, and a system call that blocks is broken (EINTR) by SIGRTMIN + 1. Does nothing if this request
 * does not run any more. Shutdown functions run, so it may have to be called again. */
void howdah_interpreter_end(howdah_interpreter *interpreter, uint64_t number, howdah_ending ending);

/* One FastCGI parameter. Both strings end in NUL. */
typedef struct howdah_variable {
	const char *name;
	size_t name_length;
	const char *value;
	size_t value_length;
} howdah_variable;

/* One request. Strings end in NUL, may be null, and live until howdah_request_run returns. */
typedef struct howdah_request {
	/* Handed to every callback. Never null. */
	void *context;
	const howdah_variable *variables;
	size_t variable_count;
	const char *method;
	const char *query_string;
	const char *content_type;
	/* CONTENT_LENGTH, or how long the body is where the request has none. Never negative. */
	int64_t content_length;
	const char *request_uri;
	/* The script, as the server named it. Null: there is none, `refusal` says why. */
	const char *script;
	/* Where set: nothing runs; this is the body, with `refusal_status` as its status. */
	const char *refusal;
	int refusal_status;
} howdah_request;

typedef enum howdah_outcome {
	/* The request ended as PHP means it to, errors of the script included. */
	HOWDAH_ENDED = 0,
	/* PHP could not start the request: nothing ran. The answer, if one was written, is complete. */
	HOWDAH_NOT_STARTED = 1,
	/* The body can't be read (see read_body): nothing ran. */
	HOWDAH_BODY_LOST = 2,
	/* A fatal error got past PHP's own guards: this interpreter must not run again. */
	HOWDAH_BROKEN = 3,
} howdah_outcome;

typedef struct howdah_result {
	howdah_outcome outcome;
	/* The HTTP status that the script ended with. */
	int status;
	/* The script's exit status: 255 after a fatal error. */
	int exit_status;
	/* The most memory that PHP's allocator held for the request, in bytes. */
	size_t peak_memory;
} howdah_result;

/* Runs one request on the calling thread, which must be an interpreter: start-up, script,
 * shutdown. No longjmp leaves it. */
howdah_result howdah_request_run(const howdah_request *request);

#endif
