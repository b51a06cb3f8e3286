/* The engine: PHP's start-up and shutdown in this process, and interpreters on its threads. */
#ifndef _GNU_SOURCE
# define _GNU_SOURCE /* unshare */
#endif

#include "internal.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "zend_signal.h"
#if PHP_VERSION_ID >= 80300
# include "zend_call_stack.h"
#endif

#define CHILD_DESCRIPTORS 64

/* Exported, but in no header of PHP 8.2. */
extern PHPAPI char *php_ini_opened_path;
extern PHPAPI char *php_ini_scanned_files;

#ifdef ZTS
ZEND_TSRMLS_CACHE_DEFINE()
#endif

howdah_callbacks howdah_calls;
bool howdah_forked;

static int child_descriptors[CHILD_DESCRIPTORS];
static size_t child_descriptor_count;

/* Runs in the child of every fork of this process, between fork and whatever comes next, so it
 * does only what is safe there. Programs that the child executes lose the descriptors anyway
 * (close-on-exec); this is for a script that goes on as PHP in the child. */
static void in_child(void)
{
	howdah_forked = true;
	environment_in_child();
	for (size_t i = 0; i < child_descriptor_count; i++) {
		close(child_descriptors[i]);
	}
}

void howdah_close_in_children(const int *descriptors, size_t count)
{
	static bool registered;

	child_descriptor_count = MIN(count, CHILD_DESCRIPTORS);
	for (size_t i = 0; i < child_descriptor_count; i++) {
		child_descriptors[i] = descriptors[i];
	}
	if (!registered) {
		registered = pthread_atfork(NULL, NULL, in_child) == 0;
	}
}

/* With zend signals built in, PHP takes over seven signals (SIGTERM, SIGQUIT, ...) for each request,
 * which costs as many system calls. What it needs of that, SIGPROF, it sets anyway. */
static void leave_signals_alone(void)
{
#ifdef ZEND_SIGNALS
	SIGG(reset) = 0;
#endif
}

bool howdah_engine_start(const howdah_engine_config *config)
{
	char *ini_entries = pool_ini_entries(config);

	if (!ini_entries) {
		return false;
	}
	howdah_calls = config->callbacks;

#ifdef ZTS
	if (!php_tsrm_startup()) {
		return false;
	}
	ZEND_TSRMLS_CACHE_UPDATE();
#endif
	zend_signal_startup();
	leave_signals_alone();

	sapi_startup(&howdah_sapi);
	/* sapi_startup clears neither; they must be set before module start-up reads php.ini. */
	howdah_sapi.php_ini_path_override = (char *) config->ini_path;
	howdah_sapi.php_ini_ignore = config->ignore_ini;
	howdah_sapi.php_ini_ignore_cwd = 1;
	howdah_sapi.ini_entries = ini_entries;
	howdah_sapi.executable_location = (char *) config->executable;

	if (howdah_sapi.startup(&howdah_sapi) == FAILURE) {
		return false;
	}
	pool_ini_activate(config);
	locale_engine_start();
	return true;
}

howdah_settings howdah_engine_settings(void)
{
	return (howdah_settings) {
		.fix_pathinfo = HG(fix_pathinfo),
		.discard_path = HG(discard_path),
		.doc_root = PG(doc_root) && *PG(doc_root) ? PG(doc_root) : NULL,
		.opcache_restricted = opcache_restricted(),
		.ini_file = php_ini_opened_path,
		.ini_scanned = php_ini_scanned_files,
	};
}

void howdah_engine_stop(void)
{
	SG(server_context) = NULL;
	php_module_shutdown();
	sapi_shutdown();
#ifdef ZTS
	tsrm_shutdown();
#endif
}

bool howdah_interpreter_start(void)
{
#ifdef ZTS
	if (!ts_resource(0)) {
		return false;
	}
	ZEND_TSRMLS_CACHE_UPDATE();
	/* The thread gets a umask and a root of its own, so that umask() of one request cannot reach
	 * another. Where the kernel refuses, requests share them, as in any threaded PHP. */
	(void) unshare(CLONE_FS);
	leave_signals_alone();
	locale_interpreter_start();
#endif
#ifdef ZEND_CHECK_STACK_LIMIT
	/* The thread may be another than the one that started PHP. */
	zend_call_stack_init();
#endif
	return interrupt_interpreter_start();
}

void howdah_interpreter_stop(void)
{
	if (HG(broken)) {
		return;
	}
	interrupt_interpreter_stop();
#ifdef ZTS
	/* Persistent connections close here, while every extension's globals are still alive;
	 * ts_free_thread would come to them after some of those are gone. */
	dtor_func_t destructor = EG(persistent_list).pDestructor;
	zend_hash_graceful_reverse_destroy(&EG(persistent_list));
	zend_hash_init(&EG(persistent_list), 8, NULL, destructor, 1);
	ts_free_thread();
	locale_interpreter_stop();
#endif
}

howdah_paths howdah_php_paths(void)
{
	return (howdah_paths) {
		.prefix = PHP_PREFIX,
		.sysconfdir = PHP_SYSCONFDIR,
		.localstatedir = PHP_LOCALSTATEDIR,
	};
}
