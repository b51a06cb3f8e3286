/* opcache under threads, before PHP 8.4.
 *
 * A restart of opcache throws away all scripts in its memory, once nobody reads there any more. opcache finds
 * that out by locks that hold between processes only: a restart takes the memory from under the other threads.
 * From 8.4 on opcache asks first; before, restarts must not happen at all. They have two causes:
 *
 * - opcache_reset() wants one: here it does nothing, and says so.
 * - The memory or the table of scripts is full, and opcache.max_wasted_percentage of the memory is wasted: here
 *   waste is never enough. opcache goes on serving what it holds; what does not fit is compiled for each request.
 *
 * The JIT is switched off: its code, which all threads run, names functions by the copies of them that the
 * compiling thread has, and those are freed with its interpreter (pm.max_requests). */
#include "internal.h"

#if defined(ZTS) && PHP_VERSION_ID < 80400

# include <math.h>

# include "zend_extensions.h"

static zend_result (*next_post_startup)(void);
static bool restricted;

/* After every file and option, so that it wins. What PHP starts without the JIT can't enable it later. */
const char *opcache_ini_entries(void)
{
	return "opcache.jit=disable\n";
}

static PHP_FUNCTION(no_reset)
{
	if (zend_parse_parameters_none() == FAILURE) {
		RETURN_THROWS();
	}
	php_error_docref(NULL, E_WARNING, "opcache cannot be reset while threads run what it holds, and this thread-safe "
		"PHP %s is older than 8.4: use opcache_invalidate() for single files, or reload the server", PHP_VERSION);
	RETURN_FALSE;
}

/* In place of opcache's own handler of opcache.max_wasted_percentage. It runs for each interpreter's copy of the
 * setting, before the interpreter runs anything. */
static ZEND_INI_MH(never_enough)
{
	double *share = (double *) ZEND_INI_GET_ADDR();

	(void) entry;
	(void) new_value;
	(void) mh_arg3;
	(void) stage;
	*share = HUGE_VAL;
	return SUCCESS;
}

static zend_ini_entry *setting(const char *name, size_t length)
{
	return zend_hash_str_find_ptr(EG(ini_directives), name, length);
}

static bool is_enabled(void)
{
	const zend_ini_entry *enable = setting(ZEND_STRL("opcache.enable"));

	return enable && enable->value && zend_ini_parse_bool(enable->value);
}

/* When everything has started, and before interpreters copy settings and functions. */
static zend_result post_startup(void)
{
	zend_function *reset = zend_hash_str_find_ptr(CG(function_table), ZEND_STRL("opcache_reset"));
	zend_ini_entry *share = setting(ZEND_STRL("opcache.max_wasted_percentage"));

	/* If it is not enabled now, nothing enables it later. */
	if (zend_get_extension("Zend OPcache") && is_enabled()) {
		if (!share) {
			fprintf(stderr, "opcache cannot be kept from restarting, which threads do not survive: it has no "
				"opcache.max_wasted_percentage\n");
			return FAILURE;
		}
		share->on_modify = never_enough;
		never_enough(share, share->value, share->mh_arg1, share->mh_arg2, share->mh_arg3, ZEND_INI_STAGE_STARTUP);
		/* There is none if disable_functions has it. */
		if (reset && reset->type == ZEND_INTERNAL_FUNCTION) {
			reset->internal_function.handler = ZEND_FN(no_reset);
		}
		restricted = true;
	}
	return next_post_startup ? next_post_startup() : SUCCESS;
}

void opcache_startup(void)
{
	/* opcache comes later, and calls it before it starts to work. */
	next_post_startup = zend_post_startup_cb;
	zend_post_startup_cb = post_startup;
}

/* The pool may have switched opcache off. */
bool opcache_restricted(void)
{
	return restricted && is_enabled();
}

#endif
