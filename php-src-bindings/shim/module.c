/* What the interpreter has beyond libphp: php-fpm's INI settings and functions, under php-fpm's module
 * name, which applications look for. */
#include "internal.h"

#include <signal.h>
#include <sys/prctl.h>

#include "ext/standard/head.h"
#include "ext/standard/info.h"
#include "zend_extensions.h"

ZEND_DECLARE_MODULE_GLOBALS(howdah)

/* --- Settings ---------------------------------------------------------------------------- */

/* Three are here only because php-fpm has them, and so php.ini files and phpinfo(): nothing reads
 * cgi.force_redirect and cgi.redirect_status_env, which guard a program that a web server runs as CGI, nor
 * fpm.config, as no PHP runs yet where the configuration is read. */
PHP_INI_BEGIN()
	STD_PHP_INI_BOOLEAN("cgi.rfc2616_headers", "0", PHP_INI_ALL, OnUpdateBool, rfc2616_headers, zend_howdah_globals, howdah_globals)
	STD_PHP_INI_BOOLEAN("cgi.nph", "0", PHP_INI_ALL, OnUpdateBool, nph, zend_howdah_globals, howdah_globals)
	STD_PHP_INI_BOOLEAN("cgi.force_redirect", "1", PHP_INI_SYSTEM, OnUpdateBool, force_redirect, zend_howdah_globals, howdah_globals)
	STD_PHP_INI_ENTRY("cgi.redirect_status_env", NULL, PHP_INI_SYSTEM, OnUpdateString, redirect_status_env, zend_howdah_globals, howdah_globals)
	STD_PHP_INI_BOOLEAN("cgi.fix_pathinfo", "1", PHP_INI_SYSTEM, OnUpdateBool, fix_pathinfo, zend_howdah_globals, howdah_globals)
	STD_PHP_INI_BOOLEAN("cgi.discard_path", "0", PHP_INI_SYSTEM, OnUpdateBool, discard_path, zend_howdah_globals, howdah_globals)
	STD_PHP_INI_BOOLEAN("fastcgi.logging", "1", PHP_INI_SYSTEM, OnUpdateBool, logging, zend_howdah_globals, howdah_globals)
	STD_PHP_INI_ENTRY("fastcgi.error_header", NULL, PHP_INI_SYSTEM, OnUpdateString, error_header, zend_howdah_globals, howdah_globals)
	STD_PHP_INI_ENTRY("fpm.config", NULL, PHP_INI_SYSTEM, OnUpdateString, fpm_config, zend_howdah_globals, howdah_globals)
PHP_INI_END()

/* --- Functions --------------------------------------------------------------------------- */

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_fastcgi_finish_request, 0, 0, _IS_BOOL, 0)
ZEND_END_ARG_INFO()

ZEND_BEGIN_ARG_WITH_RETURN_TYPE_INFO_EX(arginfo_apache_request_headers, 0, 0, IS_ARRAY, 0)
ZEND_END_ARG_INFO()

/* Ends the answer and goes on. False where it had ended before. */
PHP_FUNCTION(fastcgi_finish_request)
{
	const howdah_request *request = current_request();

	if (zend_parse_parameters_none() == FAILURE) {
		RETURN_THROWS();
	}
	if (!request || HG(request).finished || howdah_forked) {
		RETURN_FALSE;
	}
	php_output_end_all();
	php_header();
	/* From here on output goes nowhere, and the body has ended: see request.c. */
	HG(request).finished = true;
	RETURN_BOOL(howdah_calls.finish(request->context));
}

PHP_FUNCTION(apache_request_headers)
{
	const howdah_request *request = current_request();

	if (zend_parse_parameters_none() == FAILURE) {
		RETURN_THROWS();
	}
	array_init(return_value);
	for (size_t i = 0; request && i < request->variable_count; i++) {
		const howdah_variable *variable = &request->variables[i];
		/* HTTP_ACCEPT becomes Accept; what is no header is left out. */
		sapi_add_request_header(variable->name, (unsigned int) variable->name_length,
			(char *) variable->value, (unsigned int) variable->value_length, return_value);
	}
}

static const zend_function_entry functions[] = {
	PHP_FE(fastcgi_finish_request, arginfo_fastcgi_finish_request)
	PHP_FE(apache_request_headers, arginfo_apache_request_headers)
	PHP_FALIAS(getallheaders, apache_request_headers, arginfo_apache_request_headers)
	PHP_FE_END
};

/* --- The module -------------------------------------------------------------------------- */

static PHP_GINIT_FUNCTION(howdah)
{
#ifdef ZTS
	ZEND_TSRMLS_CACHE_UPDATE();
#endif
	memset(howdah_globals, 0, sizeof(*howdah_globals));
	user_ini_globals_init(howdah_globals);
}

static PHP_GSHUTDOWN_FUNCTION(howdah)
{
	user_ini_globals_destroy(howdah_globals);
}

/* Every libphp is called libphp.so at run time, so the loader may find another one than the linker. */
static bool is_right_library(void)
{
	const zend_module_entry *module = zend_hash_str_find_ptr(&module_registry, ZEND_STRL("standard"));

	/* Names the ABI, threads and debug. */
	if (!module || strcmp(module->build_id, ZEND_MODULE_BUILD_ID) == 0) {
		return true;
	}
	fprintf(stderr, "This program was built for PHP %s (%s), but the libphp.so that was loaded is PHP %s (%s)\n",
		PHP_VERSION, ZEND_MODULE_BUILD_ID, module->version, module->build_id);
	return false;
}

/* --- pcntl ------------------------------------------------------------------------------- */

static zif_handler original_fork;

/* A script's child is not to outlive the server. (What proc_open() starts may.) */
static PHP_FUNCTION(fork_that_ends_with_us)
{
	original_fork(INTERNAL_FUNCTION_PARAM_PASSTHRU);
	if (howdah_forked) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
	}
}

static zif_handler original_sigprocmask;

/* What a script blocks is not to stay blocked for the next one. */
static PHP_FUNCTION(sigprocmask_that_ends_with_the_request)
{
	if (!HG(mask_changed)) {
		HG(mask_changed) = pthread_sigmask(SIG_SETMASK, NULL, &HG(mask)) == 0;
	}
	original_sigprocmask(INTERNAL_FUNCTION_PARAM_PASSTHRU);
}

static void signal_mask_request_shutdown(void)
{
	if (HG(mask_changed)) {
		HG(mask_changed) = false;
		pthread_sigmask(SIG_SETMASK, &HG(mask), NULL);
	}
}

static void replace(const char *name, size_t length, zif_handler replacement, zif_handler *original)
{
	zend_function *function = zend_hash_str_find_ptr(CG(function_table), name, length);

	if (function && function->type == ZEND_INTERNAL_FUNCTION) {
		*original = function->internal_function.handler;
		function->internal_function.handler = replacement;
	}
}

/* Before threads copy the function table. */
static void pcntl_startup(void)
{
	replace(ZEND_STRL("pcntl_fork"), PHP_FN(fork_that_ends_with_us), &original_fork);
	replace(ZEND_STRL("pcntl_sigprocmask"), PHP_FN(sigprocmask_that_ends_with_the_request), &original_sigprocmask);
}

/* --- The module -------------------------------------------------------------------------- */

static PHP_MINIT_FUNCTION(howdah)
{
	if (!is_right_library()) {
		return FAILURE;
	}
	REGISTER_INI_ENTRIES();
	/* Now, as PHP disables functions when all modules have started, and as threads copy the
	 * function table after that. */
	pool_ini_startup();
	environment_startup();
	interrupt_startup();
	opcache_startup();
	pcntl_startup();
	return SUCCESS;
}

static PHP_MSHUTDOWN_FUNCTION(howdah)
{
	(void) type;
	UNREGISTER_INI_ENTRIES();
	return SUCCESS;
}

static PHP_MINFO_FUNCTION(howdah)
{
	php_info_print_table_start();
	php_info_print_table_row(2, "howdah", "active");
	php_info_print_table_end();
	DISPLAY_INI_ENTRIES();
}

/* The last of a request's shutdown in which a module has a say: after scripts, handlers of every
 * module and output, before PHP drains the body. It runs even for a request that failed to start. */
static ZEND_MODULE_POST_ZEND_DEACTIVATE_D(howdah)
{
	/* Else PHP would read to its end what the script left unread, which goes with the request anyway. */
	HG(request).body_closed = true;
	request_ini_deactivate();
	environment_request_shutdown();
	signal_mask_request_shutdown();
	return SUCCESS;
}

zend_module_entry howdah_module_entry = {
	STANDARD_MODULE_HEADER,
	"cgi-fcgi",
	functions,
	PHP_MINIT(howdah),
	PHP_MSHUTDOWN(howdah),
	NULL,
	NULL,
	PHP_MINFO(howdah),
	PHP_VERSION,
	PHP_MODULE_GLOBALS(howdah),
	PHP_GINIT(howdah),
	PHP_GSHUTDOWN(howdah),
	ZEND_MODULE_POST_ZEND_DEACTIVATE_N(howdah),
	STANDARD_MODULE_PROPERTIES_EX
};

/* --- What the command line shows --------------------------------------------------------- */

/* phpinfo() as text, as `php -i` has it. */
bool howdah_print_info(void)
{
	volatile bool done = false;

	sapi_module.phpinfo_as_text = 1;
	zend_first_try {
		if (php_request_startup() == SUCCESS) {
			SG(headers_sent) = 1;
			SG(request_info).no_headers = 1;
			php_print_info(PHP_INFO_ALL);
			done = true;
		}
	} zend_end_try();
	zend_first_try {
		php_request_shutdown(NULL);
	} zend_catch {
		done = false;
	} zend_end_try();
	sapi_module.phpinfo_as_text = 0;
	return done;
}

static int compare_names(const void *left, const void *right)
{
	return strcasecmp(*(const char *const *) left, *(const char *const *) right);
}

/* Prints the names that are there, in order. */
static void print_sorted(const char **names, size_t count)
{
	qsort(names, count, sizeof(*names), compare_names);
	for (size_t i = 0; i < count; i++) {
		printf("%s\n", names[i]);
	}
}

bool howdah_print_modules(void)
{
	size_t modules = zend_hash_num_elements(&module_registry);
	size_t extensions = zend_llist_count(&zend_extensions);
	const char **names = calloc(MAX(modules, extensions) + 1, sizeof(*names));
	zend_module_entry *module;
	size_t count = 0;

	if (!names) {
		return false;
	}
	ZEND_HASH_FOREACH_PTR(&module_registry, module) {
		names[count++] = module->name;
	} ZEND_HASH_FOREACH_END();
	puts("[PHP Modules]");
	print_sorted(names, count);

	count = 0;
	for (zend_llist_element *element = zend_extensions.head; element; element = element->next) {
		names[count++] = ((zend_extension *) element->data)->name;
	}
	puts("\n[Zend Modules]");
	print_sorted(names, count);
	puts("");
	free(names);
	return fflush(stdout) == 0;
}
