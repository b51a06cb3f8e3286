/* opcache under threads, before PHP 8.4.
 *
 * A restart of opcache throws away all scripts in its memory, once no process reads there any more. opcache
 * finds that out by locks of files, which never hold between threads of one process: a restart takes the memory
 * from under those that run. From 8.4 on opcache asks first; before, restarts must not happen at all. Two ways
 * lead to one:
 *
 * - opcache_reset() wants it: it does nothing here, and says so.
 * - The memory, or the table of scripts, is full, and more than opcache.max_wasted_percentage of the memory is
 *   wasted: here never enough of it is. opcache goes on with what it has; other scripts are compiled
 *   for each request, as if without it.
 *
 * The JIT compiles code that threads are running, and is not made for it before 8.4 either. */
#include "internal.h"

#if defined(ZTS) && PHP_VERSION_ID < 80400

# include <math.h>

# include "zend_extensions.h"

static bool restricted;

static PHP_FUNCTION(no_reset)
{
	if (zend_parse_parameters_none() == FAILURE) {
		RETURN_THROWS();
	}
	php_error_docref(NULL, E_WARNING, "The cache can't be reset: this thread-safe PHP %s is older than 8.4, and other "
		"threads are running what the cache holds. Use opcache_invalidate() for single files, or reload the server",
		PHP_VERSION);
	RETURN_FALSE;
}

/* In place of opcache's own handler of opcache.max_wasted_percentage. Each interpreter calls it for its copy of
 * the setting before it runs anything. */
static ZEND_INI_MH(waste_never_counts)
{
	double *share = (double *) ZEND_INI_GET_ADDR();

	(void) entry;
	(void) new_value;
	(void) mh_arg3;
	(void) stage;
	*share = HUGE_VAL;
	return SUCCESS;
}

const char *opcache_ini_entries(void)
{
	/* After every file and option, so that it wins. Once the JIT is disabled, nothing enables it. */
	return "opcache.jit=disable\n";
}

/* When PHP has started and no interpreter has. */
bool opcache_engine_start(void)
{
	zend_function *reset = zend_hash_str_find_ptr(CG(function_table), ZEND_STRL("opcache_reset"));

	/* What is not enabled now can't be enabled later. */
	if (!zend_get_extension("Zend OPcache") || !zend_ini_long(ZEND_STRL("opcache.enable"), false)) {
		return true;
	}
	if (!reset || reset->type != ZEND_INTERNAL_FUNCTION
			|| !replace_ini_handler("opcache.max_wasted_percentage", waste_never_counts)) {
		fprintf(stderr, "opcache is not as PHP %s has it: it can't be kept from restarts, which threads do not survive\n",
			PHP_VERSION);
		return false;
	}
	/* All threads share the function. */
	reset->internal_function.handler = ZEND_FN(no_reset);
	restricted = true;
	return true;
}

bool opcache_restricted(void)
{
	return restricted;
}

#endif
