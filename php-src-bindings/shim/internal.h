/* What the shim's files share. PHP's headers come first: they set feature macros. */
#ifndef HOWDAH_INTERNAL_H
#define HOWDAH_INTERNAL_H

#include "php.h"
#include "SAPI.h"
#include "php_ini.h"
#include "php_main.h"
#include "php_output.h"
#include "php_variables.h"

#include <signal.h>

#include "howdah.h"

#ifdef ZTS
ZEND_TSRMLS_CACHE_EXTERN()
#endif

/* Where the request on this thread stands. */
typedef struct request_state {
	/* A read of the body failed before the script began. */
	bool body_lost;
	/* Nobody reads the body any more. */
	bool body_closed;
	/* The answer has ended; what follows goes nowhere. */
	bool finished;
} request_state;

/* php-fpm's INI settings and what one interpreter keeps. */
ZEND_BEGIN_MODULE_GLOBALS(howdah)
	bool rfc2616_headers;
	bool nph;
	bool force_redirect;
	bool fix_pathinfo;
	bool discard_path;
	bool logging;
	char *redirect_status_env;
	char *error_header;
	char *fpm_config;
	/* directory => struct with the directory's .user.ini settings; see ini.c */
	HashTable user_ini_cache;
	/* what PHP_ADMIN_VALUE disabled for this request; see ini.c */
	struct disabled_function *disabled_functions;
	/* A fatal error got past PHP's guards: nothing of this interpreter can be trusted. */
	bool broken;
	/* The signal mask before a script changed it; see module.c */
	sigset_t mask;
	bool mask_changed;
	request_state request;
ZEND_END_MODULE_GLOBALS(howdah)

ZEND_EXTERN_MODULE_GLOBALS(howdah)
#define HG(v) ZEND_MODULE_GLOBALS_ACCESSOR(howdah, v)

extern zend_module_entry howdah_module_entry;
extern howdah_callbacks howdah_calls;

/* True in a process that a script forked: it must not touch the connection. */
extern bool howdah_forked;

/* Null outside of a request. */
static inline const howdah_request *current_request(void)
{
	return (const howdah_request *) SG(server_context);
}

/* The parameter's value, or null. */
const howdah_variable *request_variable(const howdah_request *request, const char *name, size_t length);

/* ini.c */
char *pool_ini_entries(const howdah_engine_config *config);
void pool_ini_startup(void);
void pool_ini_activate(const howdah_engine_config *config);
void user_ini_globals_init(zend_howdah_globals *globals);
void user_ini_globals_destroy(zend_howdah_globals *globals);
void user_ini_activate(const howdah_request *request);
void request_ini_activate(const howdah_request *request);
void request_ini_deactivate(void);

/* interrupt.c */
void interrupt_startup(void);
bool interrupt_interpreter_start(void);
void interrupt_interpreter_stop(void);
void interrupt_request_start(void);
void interrupt_request_started(void);
void interrupt_request_end(void);
void interrupt_abort(void);

/* environment.c and locale.c: what a process has once and threads must not share. */
#ifdef ZTS
void environment_startup(void);
void environment_import(zval *array);
void environment_in_child(void);
void environment_request_shutdown(void);
void locale_engine_start(void);
void locale_interpreter_start(void);
void locale_interpreter_stop(void);
#else
static inline void environment_startup(void) {}
static inline void environment_import(zval *array) { (void) array; }
static inline void environment_in_child(void) {}
static inline void environment_request_shutdown(void) {}
static inline void locale_engine_start(void) {}
static inline void locale_interpreter_start(void) {}
static inline void locale_interpreter_stop(void) {}
#endif

/* opcache.c: what threads do not survive, before PHP 8.4. */
#if defined(ZTS) && PHP_VERSION_ID < 80400
const char *opcache_ini_entries(void);
void opcache_startup(void);
bool opcache_restricted(void);
#else
static inline const char *opcache_ini_entries(void) { return ""; }
static inline void opcache_startup(void) {}
static inline bool opcache_restricted(void) { return false; }
#endif

/* request.c */
extern sapi_module_struct howdah_sapi;

#endif
